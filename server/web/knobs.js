// How the playground's lists shall be.
import { byId, h } from "../static/dom.js";
import { number, t } from "../static/words.js";

const SLIDERS = [
  { name: "diversity", min: 0, max: 1, step: 0.05, needs: () => true },
  { name: "popularity", min: -2, max: 2, step: 0.1, needs: (domains) => domains.some((one) => one.popularity) },
];
const turned = { diversity: 0, popularity: 0 };
const left = new Set(); // domains that are not asked

/** As the API takes it. */
export function knobs(domains) {
  const wanted = domains.map((one) => one.name).filter((name) => !left.has(name));
  return { ...turned, domains: wanted.length && left.size ? wanted : null };
}

export function showKnobs(domains, changed) {
  const sliders = SLIDERS.filter((one) => one.needs(domains)).map((one) => slider(one, changed));
  byId("taste-knobs").replaceChildren(...(domains.length > 1 ? [choice(domains, changed)] : []), ...sliders);
}

function choice(domains, changed) {
  const box = ({ name }) => {
    const ticked = (event) => {
      if (event.target.checked) left.delete(name);
      else if (left.size + 1 < domains.length) left.add(name);
      else event.target.checked = true; // one must be asked
      changed();
    };
    return h("label.row", {}, h("input", { type: "checkbox", checked: !left.has(name), onchange: ticked }), name);
  };
  return h("fieldset", {}, h("legend.label", {}, t("from")), h("div.row", {}, domains.map(box)));
}

const signed = (value) => (value > 0 ? "+" : "") + number(value, 2);

function slider({ name, min, max, step }, changed) {
  const id = `knob-${name}`;
  const output = h("output", { for: id }, signed(turned[name]));
  const moved = (event) => {
    turned[name] = Number(event.target.value);
    output.textContent = signed(turned[name]);
    changed();
  };
  return h(
    "div.knob",
    {},
    h("label", { for: id }, t(name)),
    output,
    h("input", { id, type: "range", min: String(min), max: String(max), step: String(step), value: String(turned[name]), "aria-describedby": `${id}-hint`, oninput: moved }),
    h("p.hint", { id: `${id}-hint` }, t(`${name}.hint`)),
  );
}
