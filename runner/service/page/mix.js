// The items of a mix: a row with a slider for each.

export class Mix {
  // changed: called when a weight was changed. say: shows a text.
  constructor(list, changed, say) {
    Object.assign(this, {list, changed, say, items: [], most: 8});
  }

  add(item) {
    if (this.items.length >= this.most) { this.say(`At most ${this.most} can be mixed.`); return; }
    this.items.push({weight: 0.5, ...item});
    this.show();
  }

  set(items) {
    this.items = items.map(item => ({name: "a picture", ...item}));
    this.show();
  }

  // As the server takes them.
  get asked() { return this.items.map(({text, image, weight}) => image ? {image, weight} : {text, weight}); }

  show() { this.list.replaceChildren(...this.items.map((item, index) => this.row(item, index))); }

  row(item, index) {
    const row = document.createElement("li"), number = index + 1, name = item.image ? "picture" : "text";
    const slider = document.createElement("input"), shown = document.createElement("output"), drop = document.createElement("button");
    Object.assign(slider, {type: "range", min: -1, max: 1, step: 0.05, value: item.weight});
    slider.setAttribute("aria-label", `weight of ${name} ${number}`);
    shown.textContent = item.weight.toFixed(2);
    slider.oninput = () => { item.weight = Number(slider.value); shown.textContent = item.weight.toFixed(2); this.changed(); };
    Object.assign(drop, {type: "button", textContent: "Remove"});
    drop.setAttribute("aria-label", `remove ${name} ${number}`);
    drop.onclick = () => { this.items.splice(index, 1); this.show(); };
    row.append(this.subject(item, name, number), slider, shown, drop);
    return row;
  }

  subject(item, name, number) {
    if (item.image) {
      return Object.assign(document.createElement("img"), {src: item.image, alt: `${name} ${number}: ${item.name}`});
    }
    const field = Object.assign(document.createElement("input"), {value: item.text});
    field.setAttribute("aria-label", `${name} ${number}`);
    field.oninput = () => { item.text = field.value; };
    return field;
  }
}
