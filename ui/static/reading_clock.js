// Counts the seconds in which somebody reads: the page is in sight, and a hand was on mouse or keyboard within the last minute.
// Reports them every `every` seconds, and once when the page goes out of sight. Nothing but a number leaves the browser.
const STILL_S = 60;

export default function mount(component) {
  const signs = ["pointermove", "pointerdown", "wheel", "keydown"];
  let last = performance.now(), seconds = 0;
  const alive = () => { last = performance.now(); };
  const report = () => {
    if (seconds > 0) component.setTriggerValue("seconds", seconds);
    seconds = 0;
  };
  const hidden = () => { if (document.hidden) report(); };
  const timer = setInterval(() => {
    if (!document.hidden && performance.now() - last < STILL_S * 1000) seconds += 1;
    if (seconds >= component.data.every) report();
  }, 1000);
  for (const sign of signs) document.addEventListener(sign, alive, { passive: true, capture: true });
  document.addEventListener("visibilitychange", hidden);
  return () => {
    clearInterval(timer);
    for (const sign of signs) document.removeEventListener(sign, alive, { capture: true });
    document.removeEventListener("visibilitychange", hidden);
  };
}
