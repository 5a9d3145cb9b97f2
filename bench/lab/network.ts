/**
 * The lab's network. One namespace per host, one for the seed (our supernode, the others' first seeder), one for the
 * origin, one for the switch:
 *
 *     h1 … hN ──veth──┐
 *                  switch (bridge)          every cable is shaped at both ends: the host's end is its uplink,
 *     seed ────veth──┘                      the switch's end its downlink
 *       └──veth, not shaped── origin        the seed forwards, so hosts reach the origin through the seed's link
 *
 * With racks the hosts of each hang on a bridge of their own, and that on the switch by a cable shaped in both directions.
 */
import { MTU_BYTES } from "./bound.ts";
import { run } from "./command.ts";

const PREFIX = "dflab-";
const SWITCH = `${PREFIX}switch`;
const CORE = "br0";
export const SEED = `${PREFIX}seed`;
export const ORIGIN = `${PREFIX}origin`;
export const SEED_ADDRESS = "10.77.0.1";
export const ORIGIN_ADDRESS = "10.78.0.2";
/** What a bucket may send at once. A 64 KiB segmentation-offload packet must fit, or tbf has to cut it up. */
export const BURST_BYTES = 64 * 1024;
/** How long a frame may wait in a bucket before it is dropped: 305 KiB at 50 Mbit/s. */
export const QUEUE_MS = 50;

export function hostNamespace(host: number): string {
  return `${PREFIX}h${host + 1}`;
}

export function hostAddress(host: number): string {
  return `10.77.1.${host + 1}`;
}

function rackBridge(rack: number): string {
  return `rack${rack + 1}`;
}

/** The switch's end of a rack's cable. */
function corePort(rack: number): string {
  return `${rackBridge(rack)}-down`;
}

export interface Speed {
  readonly up: number;
  readonly down: number;
}

/** Which hosts share a link to the switch, and how fast it is, both ways. */
export interface Racks {
  readonly count: number;
  readonly rate: number;
  readonly of: (host: number) => number;
}

/** Builds everything; speeds in bit/s. Removes what an interrupted lab left behind first. */
export function buildNetwork(hosts: readonly Speed[], seed: Speed, racks: Racks | undefined, congestion: string): void {
  removeNetwork();
  addNamespace(SWITCH, congestion);
  addBridge(CORE);
  plug(SEED, SEED_ADDRESS, CORE, seed, congestion);
  for (let rack = 0; rack < (racks?.count ?? 0); rack++) addRack(rack, racks!.rate);
  addNamespace(ORIGIN, congestion);
  run("ip", ["-n", ORIGIN, "-batch", "-"], [
    `link add eth0 mtu ${MTU_BYTES} type veth peer name origin0 mtu ${MTU_BYTES} netns ${SEED}`,
    `addr add ${ORIGIN_ADDRESS}/30 dev eth0`,
    "link set eth0 up",
    "route add default via 10.78.0.1",
  ].join("\n"));
  run("ip", ["-n", SEED, "-batch", "-"], "addr add 10.78.0.1/30 dev origin0\nlink set origin0 up");
  sysctl(SEED, "net.ipv4.ip_forward=1");
  hosts.forEach((speed, host) => {
    plug(hostNamespace(host), hostAddress(host), racks === undefined ? CORE : rackBridge(racks.of(host)), speed, congestion);
    run("ip", ["-n", hostNamespace(host), "route", "add", "10.78.0.0/30", "via", SEED_ADDRESS]);
  });
}

/** Ends whatever runs in the lab's namespaces and removes them, with the cables in them. */
export function removeNetwork(): void {
  const names = run("ip", ["netns", "list"]).split("\n").map((line) => line.split(" ")[0] ?? "").filter((name) => name.startsWith(PREFIX));
  for (const name of names) {
    for (const pid of run("ip", ["netns", "pids", name]).split("\n").filter(Boolean)) {
      try {
        process.kill(Number(pid), "SIGKILL");
      } catch {
        // It ended by itself in between.
      }
    }
  }
  for (const name of names) run("ip", ["netns", "delete", name]);
}

/** Bytes the interface has sent since it was made, headers included. */
export function sentBytes(namespace: string, device = "eth0"): number {
  return Number(run("ip", ["netns", "exec", namespace, "cat", `/sys/class/net/${device}/statistics/tx_bytes`]));
}

/** Bytes that have come into a rack over its cable. */
export function bytesIntoRack(rack: number): number {
  return sentBytes(SWITCH, corePort(rack));
}

export function congestionControl(namespace: string): string {
  return run("ip", ["netns", "exec", namespace, "cat", "/proc/sys/net/ipv4/tcp_congestion_control"]).trim();
}

function addNamespace(name: string, congestion: string): void {
  run("ip", ["netns", "add", name]);
  run("ip", ["-n", name, "link", "set", "lo", "up"]);
  // No memory of earlier runs' congestion windows.
  sysctl(name, "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1", "net.ipv4.tcp_no_metrics_save=1");
  try {
    sysctl(name, `net.ipv4.tcp_congestion_control=${congestion}`);
  } catch (error) {
    throw new Error(`${congestion} cannot be chosen here: load its module, add it to net.ipv4.tcp_allowed_congestion_control, or give --congestion another name`, { cause: error });
  }
}

function addBridge(name: string): void {
  run("ip", ["-n", SWITCH, "link", "add", name, "mtu", String(MTU_BYTES), "type", "bridge", "forward_delay", "0", "mcast_snooping", "0"]);
  run("ip", ["-n", SWITCH, "link", "set", name, "up"]);
}

function addRack(rack: number, rate: number): void {
  const [bridge, down, up] = [rackBridge(rack), corePort(rack), `${rackBridge(rack)}-up`];
  addBridge(bridge);
  run("ip", ["-n", SWITCH, "-batch", "-"], [
    `link add ${down} mtu ${MTU_BYTES} type veth peer name ${up} mtu ${MTU_BYTES}`,
    `link set ${down} master ${CORE}`,
    `link set ${up} master ${bridge}`,
    `link set ${down} up`,
    `link set ${up} up`,
  ].join("\n"));
  shape(SWITCH, down, rate);
  shape(SWITCH, up, rate);
}

/** A namespace with a cable into a bridge, shaped at both ends. */
function plug(name: string, address: string, bridge: string, speed: Speed, congestion: string): void {
  const port = `p-${name.slice(PREFIX.length)}`;
  addNamespace(name, congestion);
  run("ip", ["-n", name, "-batch", "-"], [
    `link add eth0 mtu ${MTU_BYTES} type veth peer name ${port} mtu ${MTU_BYTES} netns ${SWITCH}`,
    `addr add ${address}/16 dev eth0`,
    "link set eth0 up",
  ].join("\n"));
  run("ip", ["-n", SWITCH, "link", "set", port, "master", bridge, "up"]);
  shape(name, "eth0", speed.up);
  shape(SWITCH, port, speed.down);
}

export function shape(namespace: string, device: string, bitsPerSecond: number): void {
  // The bucket must cover a couple of milliseconds, or timer slack eats into fast links.
  const burst = Math.max(BURST_BYTES, Math.ceil((bitsPerSecond / 8) * 0.002));
  run("tc", ["-n", namespace, "qdisc", "add", "dev", device, "root", "tbf",
    "rate", `${Math.round(bitsPerSecond)}bit`, "burst", String(burst), "latency", `${QUEUE_MS}ms`]);
}

function sysctl(namespace: string, ...settings: string[]): void {
  run("ip", ["netns", "exec", namespace, "sysctl", "-q", "-w", ...settings]);
}
