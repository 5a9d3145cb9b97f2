/** What the programs take from their surroundings, in one place, so that tests can hand in another world. */
import { accessSync, constants } from "node:fs";
import { homedir } from "node:os";
import { dirname, isAbsolute, join } from "node:path";

export interface Machine {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly isRoot: boolean;
  readonly home: string;
  /** True when the folder, or the nearest existing one above it, can be written. */
  readonly canWrite: (directory: string) => boolean;
}

export function thisMachine(): Machine {
  return { env: process.env, isRoot: process.getuid?.() === 0, home: homedir(), canWrite };
}

export const SYSTEM_STATE = "/var/lib/dragonfly";

/** `/var/lib/dragonfly/<program>` when this user may write there, else under $XDG_STATE_HOME, else ~/.local/state. */
export function defaultDataDirectory(machine: Machine, program: "supernode" | "dfdaemon"): string {
  const system = join(SYSTEM_STATE, program);
  if (machine.isRoot || machine.canWrite(system)) return system;
  return join(machine.env["XDG_STATE_HOME"] || join(machine.home, ".local/state"), "dragonfly", program);
}

/** Where a command keeps what may be deleted: $XDG_CACHE_HOME, else /var/cache (root) or ~/.cache; undefined for who has no home. */
export function cacheHome({ env, isRoot, home }: Machine): string | undefined {
  const chosen = env["XDG_CACHE_HOME"];
  if (chosen !== undefined && isAbsolute(chosen)) return chosen;
  if (isRoot) return "/var/cache";
  return isAbsolute(home) ? join(home, ".cache") : undefined;
}

/** `/run/dragonfly/dfdaemon.sock` when this user may write there, else under $XDG_RUNTIME_DIR. */
export function defaultSocketPath(machine: Machine): string {
  const runtime = machine.env["XDG_RUNTIME_DIR"];
  if (machine.isRoot || runtime === undefined || runtime === "" || machine.canWrite("/run/dragonfly"))
    return SYSTEM_SOCKET;
  return join(runtime, "dragonfly/dfdaemon.sock");
}

/** Where a client looks: the system's daemon first, then the user's own. */
export function candidateSocketPaths(machine: Machine): readonly string[] {
  const runtime = machine.env["XDG_RUNTIME_DIR"];
  return runtime === undefined || runtime === ""
    ? [SYSTEM_SOCKET]
    : [SYSTEM_SOCKET, join(runtime, "dragonfly/dfdaemon.sock")];
}

const SYSTEM_SOCKET = "/run/dragonfly/dfdaemon.sock";

function canWrite(directory: string): boolean {
  for (let at = directory; ; at = dirname(at)) {
    try {
      accessSync(at, constants.W_OK | constants.X_OK);
      return true;
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code !== "ENOENT" || at === dirname(at)) return false;
    }
  }
}
