// The pictures that were made, each with what it was made of.

export class Gallery {
  // again: called with what was asked and its seed. change: called with a picture's address, to change the picture.
  constructor(list, again, change) { Object.assign(this, {list, again, change, changes: true}); }

  keep(event, asked) {
    const row = document.createElement("li"), subject = subjectOf(asked), facts = document.createElement("p");
    const image = Object.assign(document.createElement("img"), {src: `data:image/png;base64,${event.b64_json}`, alt: subject});
    facts.textContent = [subject, asked.negative_prompt && `away from ${asked.negative_prompt}`, `seed ${event.seed}`,
      `${asked.steps} steps`, asked.size, asked.sampler].filter(Boolean).join(" · ");
    const save = Object.assign(document.createElement("a"),
      {className: "button", textContent: "Download", href: image.src, download: `picture-${event.seed}.png`});
    row.append(image, facts, button("Again", `put back the settings of: ${subject}`, () => this.again(asked, event.seed)), " ");
    if (this.changes) row.append(button("Change", `change the picture: ${subject}`, () => this.change(image.src)), " ");
    row.append(save);
    this.list.prepend(row);
  }
}

function subjectOf(asked) {
  if (asked.items) return asked.items.map(item => `${item.weight.toFixed(2)} x ${item.text || "a picture"}`).join(", ");
  if (asked.mask) return `${asked.prompt}, where the picture was marked`;
  return asked.image ? `${asked.prompt}, from a picture, ${asked.strength} anew` : asked.prompt;
}

function button(text, label, onclick) {
  const found = Object.assign(document.createElement("button"), {type: "button", textContent: text, onclick});
  found.setAttribute("aria-label", label);
  return found;
}
