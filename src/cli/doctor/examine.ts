/** What `dfdaemon doctor` does: the links in the order in which a pull needs them. */
import { toAppError } from "../../base/errors.ts";
import type { EngineName } from "../../engines/engine.ts";
import { HostFiles } from "../../engines/host-files.ts";
import { enginesHere } from "../../engines/setup.ts";
import type { ListenAddress } from "../../peer/config.ts";
import { printAddress } from "../addresses.ts";
import type { ResolvedConfig } from "../config.ts";
import type { DFDAEMON_SETTINGS } from "../config-schema.ts";
import { siteTls } from "../site-tls.ts";
import { tlsConfig } from "../site-tls-config.ts";
import { clientToken } from "../join-token.ts";
import type { Machine } from "../machine.ts";
import { reachableFromHere } from "../setup/run-setup.ts";
import type { SubcommandCall } from "../subcommand.ts";
import { checkDaemon, checkDisk, checkSocket } from "./daemon-links.ts";
import { checkEngine } from "./engine-links.ts";
import { type Finding, isFine, skipped } from "./finding.ts";
import { checkSupernode, type SupernodeQuestion } from "./supernode-links.ts";
import { checkRegistration, checkSwarm } from "./swarm-link.ts";

type Settings = typeof DFDAEMON_SETTINGS;

interface DoctorFlags {
  readonly engine?: readonly EngineName[];
  readonly image?: readonly string[];
  readonly json?: true;
}

/** @returns the exit code: 0 when nothing is broken, else 1 */
export async function runDoctor(call: SubcommandCall<Settings>): Promise<number> {
  const flags = call.command.opts<DoctorFlags>();
  const findings = await examine(call, flags);
  const isHealthy = findings.every(({ status }) => status !== "broken");
  const text = flags.json === true ? `${JSON.stringify({ healthy: isHealthy, findings }, undefined, 2)}\n` : textOf(findings);
  process.stdout.write(text);
  return isHealthy ? 0 : 1;
}

async function examine({ config, machine, version }: SubcommandCall<Settings>, flags: DoctorFlags): Promise<readonly Finding[]> {
  const { values } = config;
  const mirror = reachableFromHere(values.listen);
  const token = tokenOf(config, machine);
  const question = { version, token, tls: tlsOf(config, token), unixMs: Date.now };
  const [daemon, socket, ...supernodes] = await Promise.all([
    checkDaemon(mirror, values.peerListen.port, version),
    checkSocket(values.socket),
    ...values.supernodes.map((supernode) => checkSupernode({ ...question, supernode })),
  ]);
  const known = isFine(daemon) ? socket : skipped("socket", "dfdaemon was not there to ask");
  const whole = await examineWhole(mirror, daemon, supernodes);
  const isRegistered = whole.some((finding) => finding.link === "registration" && isFine(finding));
  const site = supernodes.flat().map((finding) => (isRegistered && finding.status === "broken" ? { ...finding, message: `${finding.message}; ${OTHER_SETTINGS}` } : finding));
  const findings = [...(machine.isRoot ? [] : [NOT_ROOT]), daemon, known, checkDisk(values.dataDir, values.reservedFree), ...site];
  const noPull = whole.every(isFine) ? undefined : "no pull can succeed before the links above are mended";
  findings.push(...whole);
  const files = new HostFiles("/");
  for (const engine of flags.engine ?? enginesHere(files)) {
    const images = flags.image ?? [];
    // oxlint-disable-next-line no-await-in-loop -- what a pull did is told by the mirror's counter before and after it
    findings.push(...(await checkEngine({ engine, files, mirror, address: printAddress(mirror), images, noPull })));
  }
  return findings;
}

async function examineWhole(mirror: ListenAddress, daemon: Finding, supernodes: readonly (readonly Finding[])[]): Promise<readonly Finding[]> {
  if (!isFine(daemon)) return [skipped("registration", "dfdaemon was not there to ask"), skipped("swarm", "dfdaemon was not there to ask")];
  const registration = await checkRegistration(mirror);
  if (!supernodes.some((findings) => findings.every(isFine)) && !isFine(registration)) return [registration, skipped("swarm", "there is no supernode to join")];
  return [registration, ...(await checkSwarm(mirror))];
}

/** What dfdaemon proves: with `insecureNoToken`, too, the token that there is. */
export function tokenOf(config: ResolvedConfig<Settings>, machine: Machine): SupernodeQuestion["token"] {
  try {
    return { value: clientToken(config, machine) };
  } catch (thrown) {
    return config.values.insecureNoToken ? { value: undefined } : { problem: toAppError(thrown).message };
  }
}

function tlsOf(config: ResolvedConfig<Settings>, token: SupernodeQuestion["token"]): SupernodeQuestion["tls"] {
  try {
    return siteTls(tlsConfig(config), "problem" in token ? undefined : token.value);
  } catch (thrown) {
    return { problem: toAppError(thrown).message };
  }
}

function textOf(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ link }) => link.length));
  const lines = findings.map(({ link, status, message }) => `${SIGNS[status]}  ${link.padEnd(width)}  ${message}\n`);
  const count = findings.filter(({ status }) => status === "broken").length;
  return `${lines.join("")}${count === 0 ? "all is well" : `${count} broken`}\n`;
}

/** A dfdaemon of this user's own is examined well; of a service's he may not see everything. */
const NOT_ROOT = skipped("user", "not run as root: a service's token, files and engines may look broken only because this user may not see them");

/** Flags of dfdaemon that nobody gave the doctor, more often than anything else. */
const OTHER_SETTINGS = "dfdaemon itself is registered at a supernode: if flags told it which, give the doctor the same (--supernode, --join-token-file)";

const SIGNS = { ok: "ok     ", broken: "BROKEN ", skipped: "skipped" } as const;
