// What is wrong with a page as it is now, by the name of the check; looks at styles and sizes as the browser computes them.
() => {
  const LEAST_TEXT = 4.5, LEAST_EDGE = 3;  // WCAG 2.1, 1.4.3 and 1.4.11, level AA
  const LEAST_SIDE = 24, LEAST_BUTTON = 44;  // pixels: WCAG 2.2, 2.5.8, and 2.5.5 for what is pressed
  const found = {}, least = {}, wide = document.documentElement.clientWidth;
  const fault = (check, text) => (found[check] ??= []).push(text);
  const named = element => element.id ? `#${element.id}` : `${element.tagName.toLowerCase()} ${(element.getAttribute("aria-label") || element.textContent.trim()).slice(0, 40)}`;
  const shown = element => element.getClientRects().length > 0 && element.checkVisibility({opacityProperty: true, visibilityProperty: true});
  const parts = colour => colour.match(/[\d.]+/g).map(Number);
  const light = colour => {
    const [r, g, b] = parts(colour).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const clear = colour => colour === "transparent" || (parts(colour)[3] ?? 1) === 0;
  const behind = element => {
    for (let node = element; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (!clear(colour)) return colour;
    }
    return matchMedia("(prefers-color-scheme: dark)").matches && getComputedStyle(document.documentElement).colorScheme.includes("dark")
      ? "rgb(18, 18, 18)" : "rgb(255, 255, 255)";
  };
  const ratio = (one, other) => {
    const [a, b] = [light(one), light(other)].sort((x, y) => y - x);
    return (a + .05) / (b + .05);
  };
  const contrast = (check, element, one, other, needed) => {
    const value = ratio(one, other);
    least[check] = Math.min(least[check] ?? 21, value);
    if (value < needed) fault(check, `${named(element)}: ${value.toFixed(2)}`);
  };

  for (const element of document.querySelectorAll("body *")) {
    if (!shown(element)) continue;
    const style = getComputedStyle(element), box = element.getBoundingClientRect();
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (own || element.matches("input:not([type=range], [type=radio], [type=checkbox], [type=color]), select, textarea")) {
      contrast("contrast of text", element, style.color, behind(element), LEAST_TEXT);
      if (element.placeholder) contrast("contrast of text", element, getComputedStyle(element, "::placeholder").color, behind(element), LEAST_TEXT);
    }
    if (element.matches("input:not([type=range], [type=radio], [type=checkbox]), select, textarea, button, .button, canvas")) {
      const edge = ratio(style.borderTopColor, behind(element.parentElement)), fill = ratio(behind(element), behind(element.parentElement));
      if (Math.max(edge, fill) < LEAST_EDGE) fault("contrast of edges", `${named(element)}: ${Math.max(edge, fill).toFixed(2)}`);
      least["contrast of edges"] = Math.min(least["contrast of edges"] ?? 21, Math.max(edge, fill));
    }
    const pressed = element.matches("button, .button");
    if (pressed || element.matches("input, select, textarea, a[href]")) {
      const side = pressed ? LEAST_BUTTON : LEAST_SIDE;
      const target = element.closest("label") ?? element;  // a label is pressed for what is in it
      if (Math.max(box.height, target.getBoundingClientRect().height) < side) fault("targets", `${named(element)}: ${box.height.toFixed(0)} pixels high`);
    }
    if (box.right > wide + .5 && style.position !== "absolute") fault("width", `${named(element)} ends at ${box.right.toFixed(0)} of ${wide}`);
  }
  if (document.documentElement.scrollWidth > wide) fault("width", `${document.documentElement.scrollWidth} of ${wide} pixels`);
  for (const image of document.querySelectorAll("img")) if (shown(image) && !image.hasAttribute("alt")) fault("names", `a picture without words: ${named(image)}`);

  const ids = [...document.querySelectorAll("[id]")].map(element => element.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) fault("references", `two things are #${id}`);
  for (const name of ["for", "aria-labelledby", "aria-describedby", "aria-controls"]) {
    for (const element of document.querySelectorAll(`[${name}]`)) {
      for (const id of element.getAttribute(name).split(/\s+/)) if (!document.getElementById(id)) fault("references", `${named(element)} names #${id}, which is not there`);
    }
  }
  if (!document.documentElement.lang) fault("language", "the page does not say its language");
  if (!document.title.trim()) fault("language", "the page has no title");
  const viewport = document.querySelector("meta[name=viewport]")?.content ?? "";
  if (!viewport.includes("width=device-width")) fault("phones", "the viewport is not the device's");
  if (/user-scalable\s*=\s*(no|0)|maximum-scale\s*=\s*1\b/.test(viewport)) fault("phones", "nobody can enlarge it");
  if (!document.querySelector("[role=status], [aria-live]")) fault("roles", "changes are told to nobody: no role status");
  if (document.getAnimations().length) fault("motion", "something moves");
  return {found, least};
}
