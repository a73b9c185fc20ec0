// Runs from a blob: URL, where relative imports do not work: fetch the real module from the viewer's own route.
// Any failure is told to the page, which then shows plain images instead.
export default async function mount(component) {
  try {
    const viewer = await import(new URL(component.data.script, document.baseURI).href);
    return viewer.default(component);
  } catch (error) {
    component.setStateValue("failed", "viewer");
    return undefined;
  }
}
