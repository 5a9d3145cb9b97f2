/** Where hosts stand, by what they say of themselves and by the networks that the operator has labelled. */
import type { HostLabels } from "../peer/config.ts";
import { TOPOLOGY_LEVELS, type Topology, type TopologyLevel, topologyOf } from "../protocol/topology.ts";
import type { NetworkLabels } from "./config.ts";
import { networkOf, parseAddress } from "./ip-network.ts";

/** Where each of its labels comes from: `host`, or the network that has it. */
export type LabelSources = { readonly [Level in TopologyLevel]?: string };

export interface Place {
  readonly topology: Topology;
  readonly sources: LabelSources;
}

interface Table {
  readonly width: 32 | 128;
  readonly bits: number;
  readonly byPrefix: Map<bigint, NetworkLabels>;
}

export class PlaceMap {
  /** The longest prefixes first. */
  #tables: readonly Table[] = [];

  /** @param networks checked: networks as `parseNetwork` reads them, none twice */
  constructor(networks: readonly NetworkLabels[]) {
    this.setNetworks(networks);
  }

  setNetworks(networks: readonly NetworkLabels[]): void {
    const tables = new Map<string, Table>();
    for (const config of networks) {
      const { width, bits, prefix } = networkOf(config.network);
      const key = `${width}/${bits}`;
      const table = tables.get(key) ?? { width, bits, byPrefix: new Map<bigint, NetworkLabels>() };
      tables.set(key, table);
      table.byPrefix.set(prefix, config);
    }
    this.#tables = [...tables.values()].sort((left, right) => right.bits - left.bits);
  }

  /**
   * What a host says of itself stands; what it leaves out comes from the networks that its address is in, each label from
   * the longest that has it. A host that contradicts them stands elsewhere: labels nearer than that one are not taken.
   */
  placeOf(labels: HostLabels, address: string): Place {
    const own = topologyOf(labels);
    const mapped = this.#lookUp(address);
    const topology: { [Level in TopologyLevel]?: string } = {};
    const sources: { [Level in TopologyLevel]?: string } = {};
    for (const level of TOPOLOGY_LEVELS) {
      const said = own[level];
      const found = mapped.get(level);
      if (said !== undefined) {
        topology[level] = said;
        sources[level] = "host";
        if (found !== undefined && found.label !== said) mapped.clear();
      } else if (found !== undefined) {
        topology[level] = found.label;
        sources[level] = found.network;
      }
    }
    return { topology, sources };
  }

  #lookUp(text: string): Map<TopologyLevel, { readonly label: string; readonly network: string }> {
    const found = new Map<TopologyLevel, { readonly label: string; readonly network: string }>();
    const address = this.#tables.length === 0 ? undefined : parseAddress(text);
    if (address === undefined) return found;
    for (const { width, bits, byPrefix } of this.#tables) {
      const config = width === address.width ? byPrefix.get(address.value >> BigInt(width - bits)) : undefined;
      if (config === undefined) continue;
      for (const level of TOPOLOGY_LEVELS) {
        const label = config.labels[level];
        if (label !== undefined && !found.has(level)) found.set(level, { label, network: config.network });
      }
    }
    return found;
  }
}
