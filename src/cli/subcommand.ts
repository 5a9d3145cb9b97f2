/** The jobs of a service's program beside running it: `dfdaemon doctor`, `supernode cache list`. */
import type { Command } from "commander";
import type { ResolvedConfig } from "./config.ts";
import type { Settings } from "./config-schema.ts";
import type { Machine } from "./machine.ts";

/** What a subcommand is called with. */
export interface SubcommandCall<S extends Settings> {
  /** The program's configuration as the service itself would read it. */
  readonly config: ResolvedConfig<S>;
  /** Parsed: holds the options and arguments that the subcommand declared. */
  readonly command: Command;
  readonly machine: Machine;
  /** Of the package. */
  readonly version: string;
}

export interface Subcommand<S extends Settings> {
  readonly name: string;
  readonly summary: string;
  /** The word that comes before the name, shared by several: `cache` in `supernode cache list`. */
  readonly group?: { readonly name: string; readonly summary: string };
  /** Settings of the program that are flags here too; `--config` always is. */
  readonly takes: readonly (keyof S & string)[];
  /** Adds options and arguments of its own. */
  readonly declare?: (command: Command) => void;
  /**
   * Does the job; writes its result to stdout.
   *
   * @returns the exit code
   * @throws AppError, which the program reports and takes the exit code from
   */
  readonly run: (call: SubcommandCall<S>) => Promise<number>;
}
