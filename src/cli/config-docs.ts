/** docs/config.md, made from the tables of settings. */
import { stringify } from "yaml";
import { DFDAEMON, DFGET, SUPERNODE, type Program, type Setting, type Settings } from "./config-schema.ts";
import { defaultDataDirectory, type Machine } from "./machine.ts";

/** The whole document; the same on every machine. */
export function configDocs(): string {
  return `${INTRODUCTION}\n${[SUPERNODE, DFDAEMON, DFGET].map((program) => programDocs(program)).join("\n")}`;
}

function programDocs(program: Program<Settings>): string {
  const rows = Object.entries(program.settings).map(([key, setting]) => row(key, setting));
  return [
    `## ${program.name}`,
    "",
    `File: \`${program.defaultFile}\`. The defaults, written out; after \`#\` examples of what has none:`,
    "",
    "```yaml",
    ...Object.entries(program.settings)
      .filter(([, setting]) => setting.notInFile !== true)
      .map(([key, setting]) => exampleLine(key, setting)),
    "```",
    "",
    "| key | flag | environment | default | reload | meaning |",
    "|---|---|---|---|---|---|",
    ...rows,
    "",
  ].join("\n");
}

function exampleLine(key: string, setting: Setting<unknown>): string {
  const printed: unknown = setting.kind.print(setting.default(NOBODYS_MACHINE));
  if (printed === undefined || printed === "none") return `# ${key}: ${setting.kind.example}`;
  return `${key}: ${Array.isArray(printed) ? `[${printed.join(", ")}]` : stringify(printed).trim()}`;
}

function row(key: string, setting: Setting<unknown>): string {
  const { kind, flag, env, envOfOthers = [], doc, reloads, notInFile } = setting;
  const cells = [
    notInFile === true ? "(not in a file)" : `\`${key}\``,
    kind.valueName === undefined ? `\`${flag}\`` : `\`${flag} ${kind.valueName}\``,
    [env, ...envOfOthers].map((name) => `\`${name}\``).join(", "),
    defaultText(setting),
    reloads === true ? "yes" : "",
    doc,
  ];
  return `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
}

function defaultText(setting: Setting<unknown>): string {
  if (setting.defaultText !== undefined) return setting.defaultText;
  const printed: unknown = setting.kind.print(setting.default(NOBODYS_MACHINE));
  return `\`${Array.isArray(printed) ? printed.join(", ") : stringify(printed).trim()}\``;
}

/** Defaults that depend on the machine have words of their own; nothing of this one shows. */
const NOBODYS_MACHINE: Machine = { env: {}, isRoot: true, home: "/root", canWrite: () => true };

const INTRODUCTION = `# Configuration

Made by \`node src/cli/print-config-docs.ts\` from \`src/cli/config-schema.ts\`: change it there.

Every value comes from the first of these that has one: flag, environment variable, file, default; variables of others
(\`HTTPS_PROXY\`, …) count after the file. A list given by a flag replaces the file's. \`--print-config\` prints what is in
effect and where each value came from; what it prints is itself a file that can be used. The file is \`--config FILE\`, else \`DRAGONFLY_CONFIG\`, else the program's own, if it is
there. Everything wrong is reported at once, with file and line; an unknown key is an error, and so is a variable that is one of ours but for a letter or two.

| kind | written as |
|---|---|
| SIZE | \`10MiB\` (2²⁰), \`10MB\` (10⁶), \`10M\`, \`10m\` (2²⁰, as in Dragonfly 1.0), \`4096\` (bytes) |
| RATE | a size per second: \`10MiB\`, \`10MiB/s\`; \`none\` = no limit; 0 is refused |
| DURATION | \`500ms\`, \`10s\`, \`5m\`, \`2h\`, \`1d\`, \`1h30m\`; a bare number is seconds; \`none\` = no limit |
| switch | a flag without a value; in a file or variable \`true\` or \`false\` |
| list | in a file a YAML list; in a variable separated by commas; a flag may be repeated |

Zero is a value; a setting that is absent has its default. SIGHUP reads everything again: settings marked *reload* take
effect at once, of others the program says that they wait for a restart; a broken file changes nothing.

The join token is looked for in \`--join-token\`, \`DRAGONFLY_JOIN_TOKEN\`, \`--join-token-file\`, and last in the file
\`join-token\` of the supernode's default data folder (\`${defaultDataDirectory(NOBODYS_MACHINE, "supernode")}\`).
`;
