/** A YAML file as raw values that remember their lines. */
import { readFileSync } from "node:fs";
import type { Alias, Document } from "yaml";
import { loadYaml } from "./on-demand.ts";

export interface ConfigFile {
  readonly values: Readonly<Record<string, unknown>>;
  /** `file:line` of the value at `path`, or of the nearest thing around it that exists. */
  locate(path: readonly PropertyKey[]): string;
  /** `file:line` of the key at `path`. */
  locateKey(path: readonly PropertyKey[]): string;
}

/** Reads and parses; everything wrong goes to `problems`. A file of nothing but comments is an empty configuration. */
export function readConfigFile(file: string, problems: string[]): ConfigFile | undefined {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (thrown) {
    problems.push(`${file}: cannot be read: ${(thrown as Error).message}`);
    return undefined;
  }
  const { isMap, isScalar, LineCounter, parseDocument, visit } = loadYaml();
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true, merge: false });
  for (const error of document.errors) {
    problems.push(`${file}:${lines.linePos(error.pos[0]).line}: ${error.message}`);
  }
  if (document.errors.length > 0) return undefined;
  // `[*.example]` without quotes is one, and the library tells of it only when values are made, and not where it is.
  const dangling: Alias[] = [];
  visit(document, { Alias: (_key, alias) => void (alias.resolve(document) === undefined && dangling.push(alias)) });
  for (const { source, range } of dangling) {
    problems.push(`${file}:${lines.linePos(range?.[0] ?? 0).line}: *${source} is YAML's way to repeat what &${source} names, and nothing does: a text that begins with * is written in quotes`);
  }
  if (dangling.length > 0) return undefined;
  if (document.contents === null || (isScalar(document.contents) && document.contents.value === null)) {
    return { values: {}, locate: () => file, locateKey: () => file };
  }
  if (!isMap(document.contents)) {
    problems.push(`${file}:1: the file must be a mapping of KEY: VALUE`);
    return undefined;
  }
  const at = (offset: number | undefined): string =>
    offset === undefined ? file : `${file}:${lines.linePos(offset).line}`;
  return {
    values: document.toJS({ maxAliasCount: 100 }) as Record<string, unknown>,
    locate: (path) => at(valueOffset(document, path)),
    locateKey: (path) => at(keyOffset(document, path) ?? valueOffset(document, path)),
  };
}

function valueOffset(document: Document.Parsed, path: readonly PropertyKey[]): number | undefined {
  for (let length = path.length; length >= 0; length--) {
    const node: unknown = length === 0 ? document.contents : document.getIn(path.slice(0, length), true);
    const range = (node as { range?: readonly number[] | null } | undefined)?.range;
    if (range?.[0] !== undefined) return range[0];
  }
  return undefined;
}

function keyOffset(document: Document.Parsed, path: readonly PropertyKey[]): number | undefined {
  const { isMap, isScalar } = loadYaml();
  const parent: unknown = path.length === 1 ? document.contents : document.getIn(path.slice(0, -1), true);
  if (!isMap(parent)) return undefined;
  const key = parent.items.find((pair) => isScalar(pair.key) && pair.key.value === path.at(-1))?.key;
  return isScalar(key) ? (key.range?.[0] ?? undefined) : undefined;
}
