/** The life of a service: read the configuration, start, reload on SIGHUP, drain on SIGTERM or SIGINT. */
import { toAppError } from "../base/errors.ts";
import { CommandLine } from "./command-line.ts";
import { printConfig, resolveConfig, type ResolvedConfig } from "./config.ts";
import type { Program, Settings } from "./config-schema.ts";
import { thisMachine, type Machine } from "./machine.ts";
import { packageVersion } from "./package-version.ts";
import { endWithStdout, outliveOutputs, reportError } from "./report-error.ts";
import type { Subcommand } from "./subcommand.ts";

/** A started service. */
export interface Service<C> {
  /** Puts new limits and the log level to work; what needs a restart is left as it is. */
  reload(config: C): void | Promise<void>;
  /** Finishes what is under way, then lets go of everything. */
  close(): Promise<void>;
}

export interface ServiceDefinition<S extends Settings, C> {
  readonly program: Program<S>;
  readonly subcommands?: readonly Subcommand<S>[];
  /** Waits, once before the start, for what the configuration needs. */
  readonly prepare?: (resolved: ResolvedConfig<S>, machine: Machine) => Promise<void>;
  readonly configure: (resolved: ResolvedConfig<S>, version: string, machine: Machine) => C;
  readonly start: (config: C) => Promise<Service<C>>;
  /** From a signal until it is given up, ms. Default: {@link DRAIN_MS_MAX}. */
  readonly drainMsMax?: number;
}

/** Runs until a signal ends it, or does a subcommand. Sets the exit code: 0 after a drain, else that of the error. */
export async function runService<S extends Settings, C>(
  definition: ServiceDefinition<S, C>,
  argv: readonly string[],
): Promise<void> {
  outliveOutputs();
  try {
    await runToEnd(definition, argv);
  } catch (thrown) {
    const error = toAppError(thrown);
    reportError(error);
    process.exitCode = error.exitCode;
  }
}

async function runToEnd<S extends Settings, C>(
  { program, subcommands = [], prepare, configure, start, drainMsMax = DRAIN_MS_MAX }: ServiceDefinition<S, C>,
  argv: readonly string[],
): Promise<void> {
  const version = packageVersion();
  const commandLine = new CommandLine(program, version);
  for (const subcommand of subcommands) commandLine.addSubcommand(subcommand);
  const parsed = commandLine.parse(argv);
  if (parsed.kind === "text") {
    endWithStdout();
    process.stdout.write(parsed.text);
    return;
  }
  const machine = thisMachine();
  const load = (): ResolvedConfig<S> =>
    resolveConfig(program, { flags: parsed.flags, file: parsed.configFile }, machine);
  const resolved = load();
  if (parsed.printConfig) {
    endWithStdout();
    process.stdout.write(printConfig(program, resolved));
    return;
  }
  if (parsed.subcommand !== undefined) {
    const { command, subcommand } = parsed;
    endWithStdout();
    process.exitCode = await subcommand.run({ config: resolved, command, machine, version });
    return;
  }
  // Before there is anything to reload, and while it ends, a reload is nothing; unheard it would end the process.
  process.on("SIGHUP", () => undefined);
  await prepare?.(resolved, machine);
  const config = configure(resolved, version, machine);
  // From here on a signal means an orderly end, even while starting.
  const ended = endSignal();
  let deadline: NodeJS.Timeout | undefined;
  void ended.then(() => (deadline = giveUpAfter(drainMsMax)));
  const service = await start(config);
  const stopReloading = onHangUp(async () => {
    const next = load();
    // First, for it may refuse: then nothing takes effect, after a restart neither.
    const nextConfig = configure(next, version, machine);
    for (const key of needRestart(program, resolved, next)) {
      process.stderr.write(`${program.name}: the new ${key} (${next.sources[key]}) takes effect after a restart\n`);
    }
    await service.reload(nextConfig);
  });
  // Whoever finds the service gone is to see why.
  process.stderr.write(`${program.name}: ${await ended}: finishing what is under way, then ending\n`);
  stopReloading();
  await service.close();
  clearTimeout(deadline);
  // Words that wait for a reader of stderr who stands still would keep the process; but for them it ends by itself, and at once.
  setTimeout(() => process.exit(), LAST_WORDS_MS_MAX).unref();
}

/** Settings that differ between two configurations, and that a running service cannot change. */
function needRestart<S extends Settings>(
  program: Program<S>,
  before: ResolvedConfig<S>,
  after: ResolvedConfig<S>,
): readonly string[] {
  return Object.keys(program.settings).filter(
    (key) =>
      program.settings[key]?.reloads !== true &&
      JSON.stringify(before.values[key]) !== JSON.stringify(after.values[key]),
  );
}

function onHangUp(reload: () => Promise<void>): () => void {
  const listener = (): void => {
    // A broken file must not stop a service that runs: say so, and go on with what there is.
    reload().catch((thrown: unknown) => {
      reportError(toAppError(thrown));
      process.stderr.write("reload refused; the configuration stays as it was\n");
    });
  };
  process.on("SIGHUP", listener);
  return () => process.off("SIGHUP", listener);
}

/** Resolves at the first SIGTERM or SIGINT, with its name; the second ends the process at once. */
function endSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let count = 0;
    for (const [signal, number] of [
      ["SIGTERM", 15],
      ["SIGINT", 2],
    ] as const) {
      process.on(signal, () => {
        count++;
        if (count > 1) process.exit(128 + number);
        resolve(signal);
      });
    }
  });
}

/** Also of a start that does not come to its end: a large cache on a slow disk, an address that is waited for. */
function giveUpAfter(drainMsMax: number): NodeJS.Timeout {
  return setTimeout(() => {
    process.stderr.write(`still busy after ${drainMsMax / 1000} s of draining: giving up\n`);
    process.exit(1);
  }, drainMsMax).unref();
}

/** Below the 30 s that Kubernetes gives by default (terminationGracePeriodSeconds). */
const DRAIN_MS_MAX = 25_000;
const LAST_WORDS_MS_MAX = 1_000;
