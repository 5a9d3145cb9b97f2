/** `dfdaemon setup`: points the container engines of this host at dfdaemon, or back. */
import { isAbsolute, join, resolve } from "node:path";
import { Option } from "commander";
import { AppError } from "../../base/errors.ts";
import { DOCKER_HUB, ENGINE_NAMES, type EngineName, type MirrorTarget } from "../../engines/engine.ts";
import { HostFiles } from "../../engines/host-files.ts";
import { EngineSetup, enginesHere } from "../../engines/setup.ts";
import type { ListenAddress } from "../../peer/config.ts";
import { isRegistryHost } from "../../protocol/distribution.ts";
import { printAddress } from "../addresses.ts";
import { collect } from "../command-line.ts";
import type { ResolvedConfig } from "../config.ts";
import type { DFDAEMON_SETTINGS } from "../config-schema.ts";
import type { Subcommand } from "../subcommand.ts";
import { setupJson, setupText } from "./setup-report.ts";

interface SetupFlags {
  readonly engine?: readonly EngineName[];
  readonly registry?: readonly string[];
  readonly root: string;
  readonly dryRun?: true;
  readonly undo?: true;
  readonly json?: true;
}

export const SETUP: Subcommand<typeof DFDAEMON_SETTINGS> = {
  name: "setup",
  summary: "points this host's container engines at dfdaemon, or back with --undo",
  takes: ["listen", "dataDir"],
  declare: (command) => {
    command
      .addOption(engineOption("set up this engine only (containerd, docker, cri-o, podman); repeatable"))
      .option("--registry <host>", "mirror this registry only; repeatable", collect)
      .option("--root <dir>", "the root directory of the host to set up", "/")
      .option("--dry-run", "write nothing; print what would change as a diff")
      .option("--undo", "put every file back as it was before setup")
      .option("--json", "print the result as JSON");
  },
  run: async ({ config, command }) => {
    const flags = command.opts<SetupFlags>();
    const host = new HostFiles(resolve(flags.root));
    const setup = new EngineSetup(host, recordDirectory(config.values.dataDir));
    const engines = flags.engine ?? (flags.undo === true ? ENGINE_NAMES : enginesHere(host));
    if (engines.length === 0) {
      throw new AppError("USAGE", `no container engine is installed under ${flags.root}: name one with --engine`);
    }
    const plan = flags.undo === true ? setup.planUndo(engines) : setup.plan(engines, mirrorTarget(config, flags.registry));
    if (flags.dryRun !== true) setup.apply(plan);
    const isDone = flags.dryRun !== true;
    process.stdout.write(flags.json === true ? setupJson(plan, isDone) : setupText(plan, isDone));
    return Promise.resolve(plan.problems.length === 0 ? 0 : 1);
  },
};

export function engineOption(description: string): Option {
  return new Option("--engine <name>", description).argParser((text, previous: readonly EngineName[] | undefined) => {
    const name = ENGINE_NAMES.find((known) => known === text);
    if (name !== undefined) return [...(previous ?? []), name];
    throw new AppError("USAGE", `--engine: "${text}" is none of ${ENGINE_NAMES.join(", ")}`);
  });
}

/** What engines are to be told of this host's daemon. @throws AppError USAGE, CONFIG_INVALID */
export function mirrorTarget(
  { values }: ResolvedConfig<typeof DFDAEMON_SETTINGS>,
  registries: readonly string[] | undefined,
): MirrorTarget {
  return {
    address: mirrorAddress(values.listen),
    registries: registries?.map(registryName),
    known: values.registries.map(({ host, url }) => ({ host: registryName(host), url })),
  };
}

/** Where engines on this host reach what listens there. */
export function mirrorAddress({ host, port }: ListenAddress): string {
  if (port === 0) throw new AppError("CONFIG_INVALID", "listen has port 0, any free one: engines need one that stays; choose it with --listen");
  const everywhere = host === "0.0.0.0" || host === "::" || host === "";
  return printAddress({ host: everywhere ? "127.0.0.1" : host, port });
}

function recordDirectory(dataDirectory: string): string {
  return join(isAbsolute(dataDirectory) ? dataDirectory : resolve(dataDirectory), "setup");
}

function registryName(text: string): string {
  const host = text.toLowerCase();
  if (!isRegistryHost(host)) throw new AppError("USAGE", `--registry: "${text}" is no registry; name it as images do, HOST or HOST:PORT`);
  return host === "index.docker.io" || host === "registry-1.docker.io" ? DOCKER_HUB : host;
}
