/** What `dfdaemon setup` does. */
import { join, resolve } from "node:path";
import { AppError } from "../../base/errors.ts";
import { DOCKER_HUB, ENGINE_NAMES, type EngineName, type MirrorTarget } from "../../engines/engine.ts";
import { HostFiles } from "../../engines/host-files.ts";
import { EngineSetup, enginesHere } from "../../engines/setup.ts";
import type { ListenAddress } from "../../peer/config.ts";
import { isRegistryHost } from "../../protocol/distribution.ts";
import { printAddress } from "../addresses.ts";
import type { ResolvedConfig } from "../config.ts";
import type { DFDAEMON_SETTINGS } from "../config-schema.ts";
import type { SubcommandCall } from "../subcommand.ts";
import { setupJson, setupText } from "./setup-report.ts";

interface SetupFlags {
  readonly engine?: readonly EngineName[];
  readonly registry?: readonly string[];
  readonly root: string;
  readonly dryRun?: true;
  readonly undo?: true;
  readonly json?: true;
}

/** @returns the exit code: 1 when an engine could not be set up, or put back */
export function runSetup({ config, command }: SubcommandCall<typeof DFDAEMON_SETTINGS>): number {
  const flags = command.opts<SetupFlags>();
  const host = new HostFiles(resolve(flags.root));
  const setup = new EngineSetup(host, join(resolve(config.values.dataDir), "setup"));
  const engines = flags.engine ?? (flags.undo === true ? ENGINE_NAMES : enginesHere(host));
  if (engines.length === 0) {
    throw new AppError("USAGE", `no container engine is installed under ${flags.root}: name one with --engine`);
  }
  const plan = flags.undo === true ? setup.planUndo(engines) : setup.plan(engines, mirrorTarget(config, flags.registry));
  const isDone = flags.dryRun !== true;
  if (isDone) setup.apply(plan);
  process.stdout.write(flags.json === true ? setupJson(plan, isDone) : setupText(plan, isDone));
  return plan.problems.length === 0 ? 0 : 1;
}

/** What engines are to be told of this host's daemon. @throws AppError USAGE, CONFIG_INVALID */
function mirrorTarget(
  { values }: ResolvedConfig<typeof DFDAEMON_SETTINGS>,
  registries: readonly string[] | undefined,
): MirrorTarget {
  return {
    address: printAddress(reachableFromHere(values.listen)),
    registries: registries?.map(registryName),
    known: values.registries.map(({ host, url }) => ({ host: registryName(host), url })),
  };
}

/** Where engines on this host reach what listens there. @throws AppError CONFIG_INVALID for port 0 */
export function reachableFromHere({ host, port }: ListenAddress): ListenAddress {
  if (port === 0) throw new AppError("CONFIG_INVALID", "listen has port 0, any free one: engines need one that stays; choose it with --listen");
  return { host: host === "0.0.0.0" || host === "::" ? "127.0.0.1" : host, port };
}

function registryName(text: string): string {
  const host = text.toLowerCase();
  if (text.includes("=")) {
    const name = JSON.stringify(text.slice(0, text.indexOf("=")));
    throw new AppError("USAGE", `--registry: give ${name} alone; its address is dfdaemon's to know: registries in its file, or --registry HOST=URL at its start`);
  }
  if (!isRegistryHost(host)) throw new AppError("USAGE", `--registry: "${text}" is no registry; name it as images do, HOST or HOST:PORT`);
  return host === "index.docker.io" || host === "registry-1.docker.io" ? DOCKER_HUB : host;
}
