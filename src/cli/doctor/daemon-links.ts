/** The links on this host: the daemon's ports, its socket, its disk. */
import { closeSync, fsyncSync, openSync, rmSync, statfsSync, writeSync } from "node:fs";
import { join } from "node:path";
import { LOCAL_PROTOCOL } from "../../dfdaemon/local/local-api.ts";
import type { ListenAddress } from "../../peer/config.ts";
import { printAddress } from "../addresses.ts";
import { showBytes } from "../units.ts";
import { answerOrReason, ask, jsonOf, Unanswered } from "./ask.ts";
import { broken, type Finding, ok, skipped } from "./finding.ts";
import { listenerOn } from "./processes.ts";

export const START = "start it: systemctl start dfdaemon, or bin/dfdaemon";

/** Does a dfdaemon of this version answer where engines ask? */
export async function checkDaemon(mirror: ListenAddress, peerPort: number, version: string): Promise<Finding> {
  const link = "dfdaemon";
  const at = printAddress(mirror);
  const answer = await answerOrReason(ask(mirror, "/version"));
  if (answer instanceof Unanswered && answer.code === "ECONNREFUSED") {
    const other = listenerOn(peerPort);
    if (other === undefined) return broken(link, `dfdaemon is not running: nobody listens on ${at}`, START);
    const said = `dfdaemon is not running, and its peer port ${peerPort} is taken by ${other.name} (pid ${other.pid})`;
    return broken(link, said, "stop that program, or choose another port with --peer-listen");
  }
  if (answer instanceof Unanswered && answer.code === "TIMEOUT") {
    return broken(link, `what listens on ${at} does not answer: ${answer.message}`, `see ${whoIs(mirror.port)} and its log`);
  }
  const found = answer instanceof Unanswered ? undefined : jsonOf(answer)["version"];
  if (answer instanceof Unanswered || answer.status !== 200 || typeof found !== "string") {
    return broken(link, `${at} is taken by ${whoIs(mirror.port)}, which is no dfdaemon`, "stop that program, or choose another port with --listen");
  }
  if (found !== version) return broken(link, `dfdaemon ${found} is running, and ${version} is installed`, "restart it: systemctl restart dfdaemon");
  return ok(link, `dfdaemon ${found} listens on ${at}`);
}

/** Can dfget reach it? */
export async function checkSocket(socketPath: string): Promise<Finding> {
  const link = "socket";
  const answer = await answerOrReason(ask({ socketPath }, "/v1/version"));
  if (answer instanceof Unanswered) {
    if (answer.code === "EACCES") {
      const advice = "run dfget as root, or join the group that the socket belongs to";
      return broken(link, `this user may not use ${socketPath} (it has mode 0660)`, advice);
    }
    const reason = answer.code === "ENOENT" ? "there is no such socket" : answer.code === "ECONNREFUSED" ? "nobody listens" : answer.message;
    return broken(link, `no dfdaemon at ${socketPath}: ${reason}`, "restart dfdaemon, with this --socket");
  }
  const { protocol } = jsonOf(answer);
  if (protocol === LOCAL_PROTOCOL) return ok(link, `${socketPath} answers`);
  return broken(link, `${socketPath} does not speak ${LOCAL_PROTOCOL}`, "restart dfdaemon, so that both are of one version");
}

/** Can pieces be kept? */
export function checkDisk(dataDirectory: string, reservedFreeBytes: number): Finding {
  const link = "disk";
  try {
    writeProbe(join(dataDirectory, `.doctor-${process.pid}`));
  } catch (thrown) {
    const { code, message } = thrown as NodeJS.ErrnoException;
    if (code === "ENOENT") return broken(link, `the data folder ${dataDirectory} is not there`, "start dfdaemon once, or say where it is with --data-dir");
    if (code === "EACCES" || code === "EPERM") return skipped(link, `this user may not look into ${dataDirectory}: run the doctor as root`);
    if (code === "EROFS") return broken(link, `${dataDirectory} lies on a read-only file system`, "mount it writable, or move it with --data-dir");
    if (code === "ENOSPC") return broken(link, `no space is left in ${dataDirectory}`, "free some, or move it with --data-dir");
    return broken(link, `cannot write in ${dataDirectory}: ${message}`, "mend the disk, or move it with --data-dir");
  }
  const { bavail, bsize } = statfsSync(dataDirectory);
  const freeBytes = bavail * bsize;
  if (freeBytes >= reservedFreeBytes) return ok(link, `${dataDirectory} takes writes, ${showBytes(freeBytes)} are free`);
  const said = `${showBytes(freeBytes)} are free in ${dataDirectory}, and ${showBytes(reservedFreeBytes)} are reserved (reservedFree): pieces are not kept`;
  return broken(link, said, "free some space, or lower --reserved-free");
}

/** Writes a file that was not there, to the disk itself, and removes it. */
function writeProbe(path: string): void {
  const file = openSync(path, "wx", 0o600);
  try {
    writeSync(file, Buffer.alloc(PROBE_BYTES));
    fsyncSync(file);
  } finally {
    closeSync(file);
    rmSync(path);
  }
}

function whoIs(port: number): string {
  const found = listenerOn(port);
  return found === undefined ? "another program" : `${found.name} (pid ${found.pid})`;
}

const PROBE_BYTES = 64 * 1024;
