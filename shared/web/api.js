// The process that served this page, asked by fetch. A refusal becomes an error that says what the server said.
import { t } from "./words.js";

const ROOT = new URL("../api/", import.meta.url);

export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function ask(method, path, body) {
  const options = { method, headers: { accept: "application/json" } };
  if (body !== undefined) {
    options.headers["content-type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(new URL(path, ROOT), options);
  } catch {
    throw new Refused(0, "");
  }
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, found.detail ?? answer.statusText);
  return found;
}

export const get = (path) => ask("GET", path);
export const post = (path, body) => ask("POST", path, body);

/** Whether this process has a path, by its own description: asking for one that is not there would be an error. */
export async function offers(path) {
  described ??= fetch(new URL("../openapi.json", ROOT)).then((answer) => answer.json());
  return `/api/${path}` in (await described).paths;
}

let described;

/** An error as a heading and, where there is more to say, the server's own words. */
export function inWords(error) {
  if (!(error instanceof Refused)) return { title: t("error.page"), detail: error.message };
  const known = [0, 400, 403, 404, 409, 413, 422, 507];
  const title = t(`error.${known.includes(error.status) ? error.status : "other"}`);
  return { title, detail: error.message };
}
