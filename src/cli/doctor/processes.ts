/** Which processes of this machine do what, as /proc tells; other users' only to root. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";

export interface RunningProcess {
  readonly pid: number;
  readonly name: string;
  readonly startedMs: number;
}

/** Processes of that name that see the same file systems as this one. */
export function processesNamed(name: string): readonly RunningProcess[] {
  const own = linkOf("/proc/self/ns/mnt");
  return pids()
    .filter((pid) => commandOf(pid) === name && linkOf(`/proc/${pid}/ns/mnt`) === own)
    .map((pid) => ({ pid, name, startedMs: startedMs(pid) }));
}

/** Who listens on a TCP port; undefined when nobody does, or nobody whose name we may know. */
export function listenerOn(port: number): { readonly pid: number; readonly name: string } | undefined {
  const sockets = new Set(["/proc/net/tcp", "/proc/net/tcp6"].flatMap((file) => listeningInodes(file, port)).map((inode) => `socket:[${inode}]`));
  const pid = sockets.size === 0 ? undefined : pids().find((each) => openFiles(each).some((file) => sockets.has(file)));
  return pid === undefined ? undefined : { pid, name: commandOf(pid) };
}

function pids(): readonly number[] {
  return readdirSync("/proc").map(Number).filter(Number.isInteger);
}

function commandOf(pid: number): string {
  return textOf(`/proc/${pid}/comm`).trimEnd();
}

/** Lines of proc_net_tcp(5): `sl local_address rem_address st … inode`; state 0A is listening. */
function listeningInodes(file: string, port: number): readonly string[] {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  return textOf(file)
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[1]?.endsWith(suffix) === true && fields[3] === "0A")
    .map((fields) => fields[9] ?? "");
}

/** Field 22 of proc_pid_stat(5), after the command, which may hold anything but ends at the last parenthesis. */
function startedMs(pid: number): number {
  const stat = textOf(`/proc/${pid}/stat`);
  const ticks = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]);
  const bootSeconds = Number(/^btime (\d+)$/m.exec(textOf("/proc/stat"))?.[1]);
  return bootSeconds * 1000 + (ticks * 1000) / TICKS_PER_SECOND;
}

function openFiles(pid: number): readonly string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`).map((fd) => linkOf(`/proc/${pid}/fd/${fd}`));
  } catch {
    return [];
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

/** USER_HZ, which is 100 on every architecture that Node runs on. */
const TICKS_PER_SECOND = 100;
