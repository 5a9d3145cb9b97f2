/** Turns a program's table of settings into a commander command, and what was typed into flag texts. */
import { readFileSync } from "node:fs";
import { Command, CommanderError, Option } from "commander";
import { AppError } from "../base/errors.ts";
import type { FlagTexts } from "./config.ts";
import type { Program, Setting, Settings } from "./config-schema.ts";

/** What was asked for; `text` is to be written to stdout and the program is done. */
export type Parsed =
  | { readonly kind: "text"; readonly text: string }
  | {
      readonly kind: "run";
      readonly flags: FlagTexts;
      readonly configFile: string | undefined;
      readonly printConfig: boolean;
      readonly command: Command;
    };

/** A command with every setting of `program` as a flag, `--config`, `--print-config`, `--version` and `--help`. */
export function createCommand(
  program: Program<Settings>,
  version: string,
  shortFlags: Readonly<Record<string, string>> = {},
): Command {
  const command = new Command(program.name)
    .description(`${program.name} ${program.summary}.`)
    .version(`${program.name} ${version}`, "-V, --version", "print the version")
    .helpOption("-h, --help", "print this help")
    .configureHelp({ helpWidth: 100 })
    .configureOutput({ writeOut: () => {}, writeErr: () => {}, outputError: () => {} })
    .exitOverride();
  for (const setting of Object.values(program.settings)) {
    command.addOption(optionOf(setting, shortFlags[setting.flag]));
  }
  command.option("--config <file>", `read this file instead of ${program.defaultFile} (env DRAGONFLY_CONFIG)`);
  command.option("--print-config", "print the configuration in effect, and where each value came from");
  return command;
}

/**
 * @param argv without the program's own name
 * @throws AppError USAGE
 */
export function parseCommandLine(command: Command, program: Program<Settings>, argv: readonly string[]): Parsed {
  try {
    command.parse([...argv], { from: "user" });
  } catch (thrown) {
    if (!(thrown instanceof CommanderError)) throw thrown;
    if (thrown.code === "commander.helpDisplayed") return { kind: "text", text: command.helpInformation() };
    if (thrown.code === "commander.version") return { kind: "text", text: `${command.version()}\n` };
    const message = thrown.message.replace(/^error: /, "").replaceAll("\n", " ");
    throw new AppError("USAGE", `${message}; try ${program.name} --help`, { cause: thrown });
  }
  const options = command.opts<Record<string, unknown>>();
  return {
    kind: "run",
    flags: flagTexts(command, program),
    configFile: options["config"] as string | undefined,
    printConfig: options["printConfig"] === true,
    command,
  };
}

/** The version in the package's manifest. */
export function packageVersion(): string {
  const manifest = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
    version: string;
  };
  return manifest.version;
}

function flagTexts(command: Command, program: Program<Settings>): FlagTexts {
  const texts: Record<string, readonly string[]> = {};
  for (const [key, setting] of Object.entries(program.settings)) {
    const option = command.options.find((candidate) => candidate.long === setting.flag);
    const attribute = option?.attributeName() ?? "";
    if (command.getOptionValueSource(attribute) !== "cli") continue;
    const value: unknown = command.getOptionValue(attribute);
    texts[key] = Array.isArray(value) ? (value as string[]) : [];
  }
  return texts;
}

function optionOf(setting: Setting<unknown>, short: string | undefined): Option {
  const { valueName } = setting.kind;
  const long = valueName === undefined ? setting.flag : `${setting.flag} <${valueName}>`;
  const option = new Option(short === undefined ? long : `${short}, ${long}`, describe(setting));
  // Every use counts: lists add up, and of a scalar the last one wins.
  return valueName === undefined ? option : option.argParser(collect);
}

/** Gathers the values of a flag that may be repeated. */
export function collect(value: string, previous: readonly string[] | undefined): readonly string[] {
  return [...(previous ?? []), value];
}

function describe(setting: Setting<unknown>): string {
  const doc = setting.doc.replaceAll("`", "").replace(/\.$/, "");
  const text = setting.flagMeans === false ? `do not ${doc.charAt(0).toLowerCase()}${doc.slice(1)}` : doc;
  return `${text} (env ${setting.env})`;
}
