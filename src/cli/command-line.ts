/** Turns a program's settings and subcommands into a command line, and what was typed into flag texts. */
import { Command, CommanderError, Option } from "commander";
import { AppError } from "../base/errors.ts";
import type { FlagTexts } from "./config.ts";
import type { Program, Setting, Settings } from "./config-schema.ts";
import type { Subcommand } from "./subcommand.ts";

/** What was asked for; `text` is to be written to stdout and the program is done. */
export type Parsed<S extends Settings> =
  | { readonly kind: "text"; readonly text: string }
  | {
      readonly kind: "run";
      readonly flags: FlagTexts;
      readonly configFile: string | undefined;
      readonly printConfig: boolean;
      /** Undefined: the program itself was called. */
      readonly subcommand: Subcommand<S> | undefined;
      /** The one that was called. */
      readonly command: Command;
    };

/** A program's command line. */
export class CommandLine<S extends Settings> {
  /** For flags beside those of the settings. */
  readonly command: Command;
  readonly #program: Program<S>;
  readonly #version: string;
  /** Of what was parsed: the subcommand, if one was called, and its command. */
  #called: { readonly subcommand: Subcommand<S> | undefined; readonly command: Command };
  #written = "";

  /** Every setting of `program` is a flag, as are `--config`, `--print-config`, `--version` and `--help`. */
  constructor(program: Program<S>, version: string, shortFlags: Readonly<Record<string, string>> = {}) {
    this.#program = program;
    this.#version = `${program.name} ${version}`;
    this.command = new Command(program.name)
      .description(`${program.name} ${program.summary}.`)
      .version(this.#version, "-V, --version", "print the version")
      .helpOption("-h, --help", "print this help")
      .helpCommand(false)
      .configureHelp({ helpWidth: 100 })
      .configureOutput({
        writeOut: (text) => (this.#written += text),
        writeErr: () => {},
        outputError: () => {},
      })
      // A flag belongs to what it follows: a subcommand's may have the name of a setting that it does not take.
      .enablePositionalOptions()
      .exitOverride();
    this.#called = { subcommand: undefined, command: this.command };
    for (const setting of Object.values(program.settings)) {
      this.command.addOption(optionOf(setting, shortFlags[setting.flag]));
    }
    this.#addConfigFlag(this.command);
    this.command.option("--print-config", "print the configuration in effect, and where each value came from");
  }

  addSubcommand(subcommand: Subcommand<S>): void {
    const { name, summary, group, takes, declare } = subcommand;
    const parent = group === undefined ? this.command : this.#group(group);
    const command = parent.command(name).description(`${summary}.`).summary(summary);
    for (const key of takes) command.addOption(optionOf(this.#setting(key), undefined));
    this.#addConfigFlag(command);
    declare?.(command);
    command.action(() => {
      this.#called = { subcommand, command };
    });
    // Without an action commander would answer a call without a subcommand by the help.
    this.command.action(() => {});
  }

  /**
   * @param argv without the program's own name
   * @throws AppError USAGE
   */
  parse(argv: readonly string[]): Parsed<S> {
    try {
      this.command.parse([...argv], { from: "user" });
    } catch (thrown) {
      if (!(thrown instanceof CommanderError)) throw thrown;
      if (thrown.code === "commander.helpDisplayed") return { kind: "text", text: this.#written };
      if (thrown.code === "commander.version") return { kind: "text", text: `${this.#version}\n` };
      throw this.#usage(said(thrown), thrown);
    }
    const { subcommand, command } = this.#called;
    if (subcommand !== undefined) this.#refuseFlagsBefore(subcommand);
    return {
      kind: "run",
      flags: this.#flagTexts(command, subcommand?.takes ?? Object.keys(this.#program.settings)),
      configFile: command.opts<{ config?: string }>().config,
      printConfig: subcommand === undefined && command.opts<{ printConfig?: boolean }>().printConfig === true,
      subcommand,
      command,
    };
  }

  #group({ name, summary }: { readonly name: string; readonly summary: string }): Command {
    const known = this.command.commands.find((command) => command.name() === name);
    return known ?? this.command.command(name).description(`${summary}.`).summary(summary).helpCommand(false);
  }

  #addConfigFlag(command: Command): void {
    command.option("--config <file>", `read this file instead of ${this.#program.defaultFile} (env DRAGONFLY_CONFIG)`);
  }

  /** They would be the service's, which is not what runs: to pass over them in silence would mislead. */
  #refuseFlagsBefore({ name, group }: Subcommand<S>): void {
    const before = this.command.options.find(
      (option) => this.command.getOptionValueSource(option.attributeName()) === "cli",
    );
    if (before === undefined) return;
    const words = group === undefined ? name : `${group.name} ${name}`;
    throw this.#usage(`${before.long} stands before "${words}": flags of a subcommand come after its name`);
  }

  #usage(message: string, cause?: unknown): AppError {
    return new AppError("USAGE", `${message}; try ${this.#program.name} --help`, { cause });
  }

  #setting(key: string): Setting<unknown> {
    const setting = this.#program.settings[key];
    if (setting === undefined) throw new AppError("INTERNAL", `${this.#program.name} has no setting ${key}`);
    return setting;
  }

  #flagTexts(command: Command, keys: readonly string[]): FlagTexts {
    const texts: Record<string, readonly string[]> = {};
    for (const key of keys) {
      const { flag } = this.#setting(key);
      const attribute = command.options.find((option) => option.long === flag)?.attributeName() ?? "";
      if (command.getOptionValueSource(attribute) !== "cli") continue;
      const value: unknown = command.getOptionValue(attribute);
      texts[key] = Array.isArray(value) ? (value as string[]) : [];
    }
    return texts;
  }
}

/** What commander has to say, on one line. */
function said(error: CommanderError): string {
  // It prints the help of a group that is called without one of its subcommands, and says nothing itself.
  if (error.code === "commander.help") return "a subcommand is missing";
  return error.message.replace(/^error: /, "").replaceAll("\n", " ");
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
