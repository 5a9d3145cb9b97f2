/** Where a client of the supernode finds its join token. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { isLoopback } from "./addresses.ts";
import { invalidConfig, type ResolvedConfig } from "./config.ts";
import type { DFDAEMON_SETTINGS, DFGET_SETTINGS } from "./config-schema.ts";
import { defaultDataDirectory, type Machine } from "./machine.ts";

type ClientSettings = Pick<typeof DFGET_SETTINGS, "joinToken" | "joinTokenFile">;

/**
 * The token itself, else the file that was named, else the file of a supernode on this machine if we may read it.
 *
 * @throws AppError CONFIG_INVALID when a file was named and holds no token
 */
export function clientToken(config: ResolvedConfig<ClientSettings>, machine: Machine): string | undefined {
  const { joinToken, joinTokenFile } = config.values;
  if (joinToken !== undefined) return joinToken;
  const file = joinTokenFile ?? defaultTokenFile(machine);
  try {
    return firstLine(file);
  } catch (thrown) {
    if (joinTokenFile === undefined) return undefined;
    throw invalidConfig([
      `${config.sources.joinTokenFile}: cannot read a join token from ${file}: ${(thrown as Error).message}`,
    ]);
  }
}

/** The token in `file`; undefined when there is none that we may read: on its own machine a supernode asks for none. */
export function readToken(file: string): string | undefined {
  try {
    return firstLine(file);
  } catch {
    return undefined;
  }
}

function firstLine(file: string): string {
  const token = readFileSync(file, "utf8").split("\n", 1)[0]?.trim() ?? "";
  if (token === "") throw new Error("its first line is empty");
  return token;
}

export function defaultTokenFile(machine: Machine): string {
  return join(defaultDataDirectory(machine, "supernode"), "join-token");
}

/**
 * When the supernode is on this machine and both are starting, its first start is still to write the token: waits for
 * the file for a few seconds, so that `supernode & dfdaemon &` works. Returns at once when a token was given.
 */
export async function awaitLocalToken(
  config: ResolvedConfig<typeof DFDAEMON_SETTINGS>,
  machine: Machine,
): Promise<void> {
  const { joinToken, joinTokenFile, insecureNoToken, supernodes } = config.values;
  if (joinToken !== undefined || insecureNoToken || !supernodes.some(({ host }) => isLoopback(host))) return;
  const file = joinTokenFile ?? defaultTokenFile(machine);
  for (let waitedMs = 0; waitedMs < WAIT_MS_MAX && !existsSync(file); waitedMs += POLL_MS) {
    if (waitedMs === 0) process.stderr.write(`dfdaemon: waiting for the supernode's join token in ${file}\n`);
    await sleep(POLL_MS);
  }
}

const WAIT_MS_MAX = 5000;
const POLL_MS = 100;
