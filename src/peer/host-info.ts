/** What a host says of itself when it registers. */
import type { Server } from "node:http";
import { hostname } from "node:os";
import type { HostInfo } from "../protocol/control-messages.ts";
import type { PeerNodeConfig } from "./config.ts";

/** @param peerPort listening */
export function hostInfoOf({ advertiseHost, program, version, labels, keeper }: PeerNodeConfig, peerPort: Server): HostInfo {
  const address = peerPort.address();
  return {
    address: advertiseHost ?? "",
    port: typeof address === "object" && address !== null ? address.port : 0,
    name: hostname(),
    program,
    version,
    labels: { ...labels },
    ...(keeper === true ? { keeper } : {}),
  };
}
