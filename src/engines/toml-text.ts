/** Changes to TOML files that leave comments, order and layout as they are; each is proved by parsing the result. */
import { isDeepStrictEqual } from "node:util";
import { parse, TomlError, type TomlTable, type TomlValue } from "smol-toml";
import { AppError } from "../base/errors.ts";

/** @throws AppError CONFIG_INVALID with file and line */
export function parseToml(text: string, path: string): TomlTable {
  try {
    return parse(text);
  } catch (thrown) {
    if (!(thrown instanceof TomlError)) throw thrown;
    const [reason] = thrown.message.replace(/^Invalid TOML document: /, "").split("\n", 1);
    throw new AppError("CONFIG_INVALID", `${path}:${thrown.line}: ${reason}: mend the file first`, { cause: thrown });
  }
}

/** The value at `keys`; undefined when it, or a table on the way, is not there. */
export function tomlAt(table: TomlTable, keys: readonly string[]): TomlValue | undefined {
  let at: TomlValue | undefined = table;
  for (const key of keys) {
    if (!isTable(at)) return undefined;
    at = Object.hasOwn(at, key) ? at[key] : undefined;
  }
  return at;
}

export function isTable(value: TomlValue | undefined): value is TomlTable {
  return typeof value === "object" && !Array.isArray(value) && !(value instanceof Date);
}

/**
 * Sets `key` in the table `keys` to a string, on its own line.
 *
 * @throws AppError CONFIG_INVALID when the text is no TOML, or is written such that this cannot be done line by line
 */
export function setTomlString(text: string, keys: readonly string[], key: string, value: string, path: string): string {
  const before = parseToml(text, path);
  if (tomlAt(before, [...keys, key]) === value) return text;
  const lines = text.split("\n");
  const headerAt = lines.findIndex((line) => isDeepStrictEqual(headerKeys(line)?.keys, keys));
  const edited = headerAt === -1 ? appended(text, keys, key, value) : inTable(lines, headerAt, key, value);
  const expected = parseToml(text, path);
  tableAt(expected, keys)[key] = value;
  return proved(edited, expected, path, `[${keys.map(quoted).join(".")}]\n${key} = ${quoted(value)}`);
}

/** Puts `block` before the first table or array of tables that `precedes` accepts, else at the end. */
export function insertTomlBlock(
  text: string,
  block: string,
  precedes: (keys: readonly string[]) => boolean,
  expected: TomlTable,
  path: string,
): string {
  const newline = newlineOf(text);
  const own = block.replaceAll("\n", newline);
  const lines = text.split("\n");
  const at = lines.findIndex((line) => precedes(headerKeys(line)?.keys ?? []));
  const edited =
    at === -1
      ? `${endedLine(text, newline)}${text === "" ? "" : newline}${own}`
      : [...lines.slice(0, at), `${own}${newline}${lines[at] ?? ""}`, ...lines.slice(at + 1)].join("\n");
  return proved(edited, expected, path, block);
}

/** A TOML basic string. */
export function quoted(text: string): string {
  return JSON.stringify(text);
}

/** Anything the line-wise look at the text did not understand shows here. */
function proved(edited: string, expected: TomlTable, path: string, wanted: string): string {
  let found: TomlTable | undefined;
  try {
    found = parse(edited);
  } catch {
    // Told below.
  }
  // Cloned, because the parser's tables have no prototype.
  if (found !== undefined && isDeepStrictEqual(structuredClone(found), structuredClone(expected))) return edited;
  throw new AppError(
    "CONFIG_INVALID",
    `${path} is laid out so that it cannot be changed safely; put this into it by hand: ${wanted.trim().replaceAll("\n", " ⏎ ")}`,
  );
}

function appended(text: string, keys: readonly string[], key: string, value: string): string {
  const newline = newlineOf(text);
  const header = `[${keys.map((part) => (/^[\w-]+$/.test(part) ? part : quoted(part))).join(".")}]`;
  return `${endedLine(text, newline)}${text === "" ? "" : newline}${header}${newline}  ${key} = ${quoted(value)}${newline}`;
}

function inTable(lines: readonly string[], headerAt: number, key: string, value: string): string {
  const next = lines.findIndex((line, at) => at > headerAt && headerKeys(line) !== undefined);
  const end = next === -1 ? lines.length : next;
  const assignment = new RegExp(`^(\\s*${key}\\s*=\\s*)(?:"[^"]*"|'[^']*')(.*)$`, "s");
  for (let at = headerAt + 1; at < end; at++) {
    const line = lines[at] ?? "";
    if (assignment.test(line)) {
      return lines.with(at, line.replace(assignment, (_, head: string, tail: string) => `${head}${quoted(value)}${tail}`)).join("\n");
    }
  }
  const header = lines[headerAt] ?? "";
  const ending = header.endsWith("\r") || headerAt === lines.length - 1 ? newlineOf(lines.join("\n")).replace("\n", "") : "";
  const line = `${/^\s*/.exec(header)?.[0] ?? ""}  ${key} = ${quoted(value)}${ending}`;
  return [...lines.slice(0, headerAt + 1), line, ...lines.slice(headerAt + 1)].join("\n");
}

/** The keys that a line like `[a."b.c"]` or `[[a]]` opens; undefined for other lines. */
function headerKeys(line: string): { readonly keys: readonly string[] } | undefined {
  if (!/^\s*\[/.test(line)) return undefined;
  let at: TomlValue | undefined;
  try {
    at = parse(line.trim());
  } catch {
    return undefined;
  }
  const keys: string[] = [];
  for (;;) {
    if (Array.isArray(at)) at = at[0];
    if (!isTable(at)) return undefined;
    const [key]: readonly string[] = Object.keys(at);
    if (key === undefined) return { keys };
    keys.push(key);
    at = at[key];
  }
}

function tableAt(root: TomlTable, keys: readonly string[]): TomlTable {
  return keys.reduce((at, key) => {
    const found = at[key];
    if (isTable(found)) return found;
    const made: TomlTable = {};
    at[key] = made;
    return made;
  }, root);
}

function newlineOf(text: string): string {
  return text.includes("\r\n") ? "\r\n" : "\n";
}

function endedLine(text: string, newline: string): string {
  return text === "" || text.endsWith("\n") ? text : `${text}${newline}`;
}
