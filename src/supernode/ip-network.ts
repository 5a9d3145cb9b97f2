/** Networks of IPv4 and IPv6 addresses as numbers, so that a table can be asked which of its networks an address is in. */
import { isIP } from "node:net";
import { assert } from "../base/assert.ts";

export interface IpAddress {
  readonly width: 32 | 128;
  readonly value: bigint;
}

export interface IpNetwork {
  readonly width: 32 | 128;
  /** Length of the prefix, 0 … width. */
  readonly bits: number;
  /** The prefix alone. */
  readonly prefix: bigint;
}

/** An IPv4 address mapped into IPv6 is that address; a zone (`fe80::1%eth0`) plays no part. @returns undefined when it is none */
export function parseAddress(text: string): IpAddress | undefined {
  const family = isIP(text);
  if (family === 0) return undefined;
  if (family === 4) return { width: 32, value: numberOf(text.split(".").map(Number), 8n) };
  const value = numberOf(groupsOf(text), 16n);
  return value >> 32n === 0xffffn ? { width: 32, value: value & 0xffff_ffffn } : { width: 128, value };
}

/** `address/bits`, or one address. @returns what is wrong with it, as the end of a sentence about it, when it is no network */
export function parseNetwork(text: string): IpNetwork | string {
  const [address = "", length, ...more] = text.split("/");
  const parsed = parseAddress(address);
  if (parsed === undefined || more.length > 0 || address.includes("%")) return "is not a network such as 10.1.0.0/16 or 2001:db8::/32";
  const { width, value } = parsed;
  if (width === 32 && address.includes(":")) return "is IPv4 in IPv6's spelling: write it as 10.1.0.0/16";
  const bits = length === undefined ? width : Number(length);
  if (length !== undefined && (!/^\d{1,3}$/.test(length) || bits > width)) return `has no prefix length from 0 to ${width}`;
  const rest = BigInt(width - bits);
  if ((value >> rest) << rest !== value) return `has bits set beyond its first ${bits}`;
  return { width, bits, prefix: value >> rest };
}

/** For a text that has been checked. */
export function networkOf(text: string): IpNetwork {
  const network = parseNetwork(text);
  assert(typeof network !== "string", `${text} ${network as string}`);
  return network;
}

export function isWithin({ width, value }: IpAddress, network: IpNetwork): boolean {
  return width === network.width && value >> BigInt(width - network.bits) === network.prefix;
}

function numberOf(parts: readonly number[], bits: bigint): bigint {
  return parts.reduce((value, part) => (value << bits) | BigInt(part), 0n);
}

/** The eight groups of an IPv6 address. */
function groupsOf(text: string): number[] {
  const plain = text.replace(/%.*$/, "").replace(/[\d.]+\.[\d.]+$/, (dotted) => {
    const value = dotted.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
    return `${(value >>> 16).toString(16)}:${(value & 0xffff).toString(16)}`;
  });
  const [before = [], after] = plain.split("::").map((side) => (side === "" ? [] : side.split(":").map((group) => Number.parseInt(group, 16))));
  if (after === undefined) return before;
  return [...before, ...Array.from({ length: 8 - before.length - after.length }, () => 0), ...after];
}
