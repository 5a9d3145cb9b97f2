import type { IncomingMessage } from "node:http";
import { BlockList, isIP } from "node:net";
import { secretsEqual } from "../../peer/membership/credentials.ts";
import { basicAuthorization } from "../../origin/origin-url.ts";

/** Who may use the proxy. */
export interface ClientRules {
  /** Addresses and networks (CIDR) that may; none: nobody may, which turns the proxy off. */
  readonly networks: readonly string[];
  /** Secret. What everybody has to log in with besides; undefined: nothing. */
  readonly credentials: { readonly username: string; readonly password: string } | undefined;
}

/** Why a client is turned away, as an HTTP status. */
export type ClientVerdict = "allowed" | 403 | 407;

/** Lets in whom the operator named, and says whether a client is on this machine. */
export class Clients {
  readonly #allowed = new BlockList();
  readonly #authorization: string | undefined;

  constructor(rules: ClientRules) {
    for (const network of rules.networks) {
      const [address = "", bits] = network.split("/");
      const family = isIP(address) === 6 ? "ipv6" : "ipv4";
      this.#allowed.addSubnet(address, bits === undefined ? (family === "ipv6" ? 128 : 32) : Number(bits), family);
    }
    const { credentials } = rules;
    this.#authorization = credentials === undefined ? undefined : basicAuthorization(credentials.username, credentials.password);
  }

  check(request: IncomingMessage): ClientVerdict {
    const address = plainAddress(request.socket.remoteAddress ?? "");
    const family = isIP(address);
    if (family === 0 || !this.#allowed.check(address, family === 6 ? "ipv6" : "ipv4")) return 403;
    if (this.#authorization === undefined) return "allowed";
    return secretsEqual(request.headers["proxy-authorization"] ?? "", this.#authorization) ? "allowed" : 407;
  }
}

/**
 * Addresses of this machine and its link: services there trust who can reach them, cloud metadata among them. Clients
 * elsewhere get nothing from there through us.
 */
export function isLocalAddress(address: string): boolean {
  const plain = plainAddress(address);
  const family = isIP(plain);
  return family !== 0 && LOCAL.check(plain, family === 6 ? "ipv6" : "ipv4");
}

/** An IPv4 address that comes as an IPv6 one, as the former. */
function plainAddress(address: string): string {
  return /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1] ?? address.replace(/%.*$/, "");
}

const LOCAL = new BlockList();
for (const [address, bits] of [["127.0.0.0", 8], ["0.0.0.0", 8], ["169.254.0.0", 16]] as const) LOCAL.addSubnet(address, bits, "ipv4");
for (const [address, bits] of [["::1", 128], ["::", 128], ["fe80::", 10], ["fd00:ec2::254", 128]] as const) LOCAL.addSubnet(address, bits, "ipv6");
