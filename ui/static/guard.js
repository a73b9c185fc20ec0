// Tells the server that its user is at work, at most every `every` seconds, and leaves the page when the session has ended.
export default function guard({ data }) {
  const leave = () => (data.signIn ? location.replace(data.signIn) : location.reload());
  if (data.ended) return leave();
  const headers = data.handle ? { "X-Medvl-Session": data.handle } : {};
  let busy = true; // drawing the page was asked for by somebody
  const note = () => { busy = true; };
  const kinds = ["pointerdown", "pointermove", "keydown", "wheel"];
  for (const kind of kinds) document.addEventListener(kind, note, { capture: true, passive: true });
  const tell = async () => {
    const method = busy ? "POST" : "GET";
    busy = false;
    try {
      const answer = await fetch(data.url, { method, headers, cache: "no-store" });
      if (answer.status === 401) leave();
    } catch { /* the server is away: Streamlit's own page says so */ }
  };
  const timer = setInterval(tell, 1000 * data.every);
  return () => {
    clearInterval(timer);
    for (const kind of kinds) document.removeEventListener(kind, note, { capture: true });
  };
}
