/** What a system has to bring to take part. */
import type { Options } from "./options.ts";
import type { Origin } from "./origin.ts";
import type { Program, Programs } from "./process.ts";

/** The stage of one run: the network is up, the origin serves, `directory(name)` is empty and in memory. */
export interface Stage {
  readonly options: Options;
  readonly origin: Origin;
  readonly programs: Programs;
  readonly directory: (name: string) => string;
}

/** One host's download, prepared up to its last step before the barrier. */
export interface Download {
  /** Where the file will be; undefined where bytes are only counted. */
  readonly path: string | undefined;
  /** Everything that runs on this host: what --kill-one and --freeze-one hit. */
  readonly programs: readonly Program[];
  /** Starts the download. */
  go(): void;
  /** The moment (`performance.now()`) the host has the file; rejects when it failed. */
  readonly done: Promise<number>;
}

export interface System {
  readonly name: string;
  /** Why it cannot run here; undefined when it can. */
  missing(): string | undefined;
  prepare(stage: Stage): Promise<readonly Download[]>;
}
