/** Resolves a program's configuration: flag > environment > file > variables of others > default; every problem reported at once. */
import { existsSync } from "node:fs";
import { AppError } from "../base/errors.ts";
import { readConfigFile, type ConfigFile } from "./config-file.ts";
import { type Program, type Setting, type Settings, VARIABLE_PREFIX, VARIABLES, type Values } from "./config-schema.ts";
import type { Machine } from "./machine.ts";
import { loadYaml } from "./on-demand.ts";

/** What the command line said, by setting: the text of each use of the flag. */
export type FlagTexts = Readonly<Record<string, readonly string[]>>;

export interface ResolvedConfig<S extends Settings> {
  readonly values: Values<S>;
  /** Where each value came from: `flag --listen`, `env DRAGONFLY_LISTEN`, `/etc/…:3`, `default`. */
  readonly sources: Readonly<Record<keyof S, string>>;
  /** Undefined when there was none. */
  readonly file: string | undefined;
}

/**
 * @param file what --config said; undefined: DRAGONFLY_CONFIG, else the program's default file if it exists
 * @throws AppError CONFIG_INVALID, its message one problem per line
 */
export function resolveConfig<S extends Settings>(
  program: Program<S>,
  given: { readonly flags: FlagTexts; readonly file: string | undefined },
  machine: Machine,
): ResolvedConfig<S> {
  const problems: string[] = [];
  const path =
    given.file ??
    (machine.env["DRAGONFLY_CONFIG"] || (existsSync(program.defaultFile) ? program.defaultFile : undefined));
  const file = path === undefined ? undefined : readConfigFile(path, problems);
  if (file !== undefined) refuseUnknownKeys(program, file, problems);
  refuseMistypedVariables(program, machine, problems);

  const values: Record<string, unknown> = {};
  const sources: Record<string, string> = {};
  for (const [key, setting] of Object.entries(program.settings)) {
    const resolved = resolveOne(key, setting, given.flags[key], machine, file, problems);
    values[key] = resolved.value;
    sources[key] = resolved.source;
  }
  if (problems.length > 0) throw invalidConfig(problems);
  return { values: values as Values<S>, sources: sources as Record<keyof S, string>, file: path };
}

/** Several problems as one error. */
export function invalidConfig(problems: readonly string[]): AppError {
  return new AppError("CONFIG_INVALID", problems.join("\n"));
}

/**
 * The configuration as a YAML file that would lead to it, each value with its source; secrets blacked out. Settings
 * without a value, and those that no file may hold, are comments.
 */
export function printConfig<S extends Settings>(program: Program<S>, config: ResolvedConfig<S>): string {
  const { stringify } = loadYaml();
  const lines = [
    `# ${program.name}: the configuration in effect`,
    `# file: ${config.file ?? `none (${program.defaultFile} does not exist)`}`,
  ];
  for (const [key, setting] of Object.entries(program.settings)) {
    const source = config.sources[key] ?? "default";
    const printed: unknown = setting.kind.print(config.values[key]);
    if (printed === undefined) {
      lines.push(
        `# ${key}: ${source === "default" ? (setting.defaultText ?? "not set").replaceAll("`", "") : "none"}  # ${source}`,
      );
      continue;
    }
    const text = stringify({ [key]: printed }, { lineWidth: 0 })
      .trimEnd()
      .split("\n");
    const prefix = setting.notInFile === true ? "# " : "";
    if (text.length === 1) lines.push(`${prefix}${text[0]}  # ${source}`);
    else lines.push(`# ${key}: ${source}`, ...text);
  }
  return `${lines.join("\n")}\n`;
}

/** Not all that nobody knows: for a service of such a name Kubernetes gives each container variables that begin so. */
function refuseMistypedVariables(program: Program<Settings>, { env }: Machine, problems: string[]): void {
  const own = Object.values(program.settings).map((setting) => setting.env);
  for (const [name, text] of Object.entries(env)) {
    if (!name.startsWith(VARIABLE_PREFIX) || text === "" || VARIABLES.has(name)) continue;
    const near = own.find((candidate) => similar(candidate.slice(VARIABLE_PREFIX.length), name.slice(VARIABLE_PREFIX.length)));
    if (near !== undefined) problems.push(`${name}: unknown variable; did you mean "${near}"?`);
  }
}

function refuseUnknownKeys(program: Program<Settings>, file: ConfigFile, problems: string[]): void {
  for (const key of Object.keys(file.values)) {
    const setting = Object.hasOwn(program.settings, key) ? program.settings[key] : undefined;
    if (setting === undefined) {
      const known = Object.keys(program.settings);
      const near = known.find((candidate) => similar(candidate, key));
      problems.push(
        `${file.locateKey([key])}: unknown key "${key}"${near === undefined ? ` (known: ${known.join(", ")})` : `; did you mean "${near}"?`}`,
      );
    } else if (setting.notInFile === true) {
      problems.push(
        `${file.locateKey([key])}: "${key}" may not stand in a file; use ${setting.flag} or ${setting.env}`,
      );
    }
  }
}

/** One raw value, and how to point at it and at the things inside it. */
interface Found {
  readonly raw: unknown;
  readonly source: string;
  readonly locate: (path: readonly PropertyKey[]) => string;
  readonly locateKey: (path: readonly PropertyKey[]) => string;
}

function resolveOne(
  key: string,
  setting: Setting<unknown>,
  flagTexts: readonly string[] | undefined,
  machine: Machine,
  file: ConfigFile | undefined,
  problems: string[],
): { readonly value: unknown; readonly source: string } {
  const found = find(key, setting, flagTexts, machine, file);
  if (found === undefined) return { value: setting.default(machine), source: "default" };
  const result = setting.kind.schema.safeParse(found.raw);
  if (result.success) return { value: result.data, source: found.source };
  for (const issue of result.error.issues) {
    if (issue.code === "unrecognized_keys") {
      for (const unknown of issue.keys ?? []) {
        const path = [...issue.path, unknown];
        problems.push(`${found.locateKey(path)}: unknown key "${[key, ...path].join(".")}"`);
      }
    } else {
      // Zod wraps what is wrong with a record's key.
      const message = issue.code === "invalid_key" ? issue.issues?.[0]?.message : issue.message;
      problems.push(`${found.locate(issue.path)}: ${message}`);
    }
  }
  return { value: undefined, source: found.source };
}

function find(
  key: string,
  setting: Setting<unknown>,
  flagTexts: readonly string[] | undefined,
  machine: Machine,
  file: ConfigFile | undefined,
): Found | undefined {
  const spoken = (raw: unknown, place: string, source: string): Found => ({
    raw,
    source,
    locate: () => place,
    locateKey: () => place,
  });
  if (flagTexts !== undefined) {
    const raw = setting.kind.valueName === undefined ? (setting.flagMeans ?? true) : setting.kind.fromTexts(flagTexts);
    return spoken(raw, setting.flag, `flag ${setting.flag}`);
  }
  const fromEnv = (names: readonly string[]): Found | undefined => {
    for (const name of names) {
      const text = machine.env[name];
      if (text !== undefined && text !== "") return spoken(setting.kind.fromTexts([text]), name, `env ${name}`);
    }
    return undefined;
  };
  const ours = fromEnv([setting.env]);
  if (ours !== undefined) return ours;
  // What others' variables say counts where we are told nothing: a machine's HTTPS_PROXY does not overrule our own file.
  if (file === undefined || setting.notInFile === true || !Object.hasOwn(file.values, key)) return fromEnv(setting.envOfOthers ?? []);
  return {
    raw: file.values[key],
    source: file.locateKey([key]),
    locate: (path) => `${file.locate([key, ...path])}: ${[key, ...path].join(".")}`,
    locateKey: (path) => file.locateKey([key, ...path]),
  };
}

/** At most two letters apart, or equal but for case and punctuation: a typing mistake worth naming. */
function similar(a: string, b: string): boolean {
  const plain = (text: string): string => text.toLowerCase().replaceAll(/[^a-z0-9]/g, "");
  const [x, y] = [plain(a), plain(b)];
  if (x === y || `${x}s` === y || x === `${y}s`) return true;
  if (Math.abs(x.length - y.length) > 2 || y.length < 5) return false;
  let row = Array.from({ length: y.length + 1 }, (_, index) => index);
  for (let i = 1; i <= x.length; i++) {
    const next = [i];
    for (let j = 1; j <= y.length; j++) {
      next.push(
        Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + (x[i - 1] === y[j - 1] ? 0 : 1)),
      );
    }
    row = next;
  }
  return (row[y.length] ?? 9) <= 2;
}
