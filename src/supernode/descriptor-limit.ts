import { readFileSync } from "node:fs";

/**
 * Files and sockets that this process may have open at a time; undefined where the system does not say (not Linux). Node
 * raises the soft limit to the hard one at its start, so this is what LimitNOFILE or `ulimit -Hn` gave.
 */
export function descriptorLimit(): number | undefined {
  try {
    const soft = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
    return soft === undefined ? undefined : Number(soft);
  } catch {
    return undefined;
  }
}

/** Control connections that fit below `limit`, beside links, files and origins. */
export function peerCountWithin(limit: number | undefined): number {
  if (limit === undefined) return PEER_COUNT_MAX;
  return Math.min(PEER_COUNT_MAX, limit - Math.min(RESERVE, Math.ceil(limit / 2)));
}

/** Ten thousand peers, and as many that are about to be found dead. */
export const PEER_COUNT_MAX = 20_000;
/** 4,096 links, the files of open tasks, readings of origins, requests. */
const RESERVE = 5_000;
