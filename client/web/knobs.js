// How the list shall be: the fields of a request that a person may turn.
import { get } from "../static/api.js";
import { byId, h, settled } from "../static/dom.js";
import { complain } from "../static/notices.js";
import { named, number, onLanguage, t } from "../static/words.js";

const SLIDERS = [
  { name: "diversity", min: 0, max: 1, step: 0.05 },
  { name: "popularity", min: -2, max: 2, step: 0.1 },
  { name: "freshness", min: -2, max: 2, step: 0.1 },
];
const PLAIN = { diversity: 0, popularity: 0, freshness: 0, column: "", value: "", age: "", seen: false };
const knobs = { ...PLAIN };

/** The wish as the API takes it. */
export function wish() {
  const { diversity, popularity, freshness, column, value, age, seen } = knobs;
  const found = { diversity, popularity, freshness, seen };
  if (column && value) found.where = { [column]: value };
  if (age !== "") found.age = Number(age);
  return found;
}

/** Builds the form; ``changed`` is called, once it is settled, when a knob was turned. ``only(column, value)`` filters. */
export function knobsForm(columns, changed) {
  const tell = settled(changed);
  const build = () => byId("knobs-body").replaceChildren(...form(columns, tell, build));
  byId("knobs").open = !matchMedia("(max-width: 56rem)").matches;
  build();
  onLanguage(build);
  return {
    only(column, value) {
      Object.assign(knobs, { column, value });
      build();
      changed();
    },
  };
}

function form(columns, tell, build) {
  const back = () => {
    Object.assign(knobs, PLAIN);
    build();
    tell();
    byId("knob-diversity").focus();
  };
  return [
    ...SLIDERS.map((one) => slider(one, tell)),
    columns.length ? filter(columns, tell) : null,
    age(tell),
    check("seen", tell),
    h("button.quiet", { type: "button", onclick: back }, t("knobs.reset")),
  ].filter(Boolean);
}

const signed = (value) => (value > 0 ? "+" : "") + number(value, 2);

function slider({ name, min, max, step }, tell) {
  const id = `knob-${name}`;
  const output = h("output", { for: id }, signed(knobs[name]));
  const turned = (event) => {
    knobs[name] = Number(event.target.value);
    output.textContent = signed(knobs[name]);
    tell();
  };
  const field = { id, type: "range", min: String(min), max: String(max), step: String(step), oninput: turned };
  return h(
    "div.knob",
    {},
    h("label", { for: id }, t(name)),
    output,
    h("input", { ...field, value: String(knobs[name]), "aria-describedby": `${id}-hint` }),
    h("p.hint", { id: `${id}-hint` }, t(`${name}.hint`)),
  );
}

function filter(columns, tell) {
  const values = h("datalist", { id: "knob-values" });
  const value = h("input", {
    id: "knob-value", list: "knob-values", value: knobs.value, maxlength: "256", autocomplete: "off",
    "aria-label": t("filter.value"), placeholder: t("filter.value"), disabled: !knobs.column,
    oninput: (event) => {
      knobs.value = event.target.value.trim();
      tell();
    },
  });
  const suggest = async (column) => {
    if (!column) return values.replaceChildren();
    const found = await get(`attributes?column=${encodeURIComponent(column)}`);
    values.replaceChildren(...found.values.map((one) => h("option", { value: one.value }, number(one.items))));
  };
  const chosen = (event) => {
    Object.assign(knobs, { column: event.target.value, value: "" });
    value.value = "";
    value.disabled = !knobs.column;
    suggest(knobs.column).catch(complain);
    tell();
  };
  const options = ["", ...columns].map((one) =>
    h("option", { value: one, selected: one === knobs.column }, one ? named("column", one) : t("filter.none")),
  );
  suggest(knobs.column).catch(complain);
  const choice = h("select", { id: "knob-column", onchange: chosen }, options);
  return h("div.field", {}, h("label", { for: "knob-column" }, t("filter")), h("div.pair", {}, choice, value), values);
}

function age(tell) {
  const turned = (event) => {
    const given = event.target.value;
    const fits = given === "" || (Number.isInteger(Number(given)) && Number(given) >= 0 && Number(given) <= 150);
    event.target.setAttribute("aria-invalid", String(!fits));
    if (!fits) return;
    knobs.age = given;
    tell();
  };
  const field = { id: "knob-age", type: "number", min: "0", max: "150", step: "1", value: knobs.age, oninput: turned };
  return h(
    "div.field",
    {},
    h("label", { for: "knob-age" }, t("age")),
    h("input", { ...field, inputmode: "numeric", "aria-describedby": "knob-age-hint" }),
    h("p.hint", { id: "knob-age-hint" }, t("age.hint")),
  );
}

function check(name, tell) {
  const turned = (event) => {
    knobs[name] = event.target.checked;
    tell();
  };
  const box = h("input", { type: "checkbox", checked: knobs[name], onchange: turned });
  return h("label.row.small", {}, box, h("span", {}, t(name)));
}
