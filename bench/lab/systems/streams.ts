/** No file and no swarm: every host takes zeros from all others until it has as many bytes. What TCP gives on this network. */
import { join } from "node:path";
import { hostAddress, hostNamespace, SEED, SEED_ADDRESS } from "../network.ts";
import type { System } from "../system.ts";

const SCRIPT = join(import.meta.dirname, "../streams-peer.ts");

export const streams: System = {
  name: "streams",
  missing: () => undefined,
  prepare: async ({ options, origin, programs }) => {
    const command = (address: string, lengthBytes: number, others: readonly string[]): string[] => ["node", SCRIPT, address, String(lengthBytes), ...others];
    const seed = programs.start(SEED, "streams-seed", command(SEED_ADDRESS, 0, []));
    await seed.line(/^ready$/);
    const addresses = Array.from({ length: options.hosts }, (_, host) => hostAddress(host));
    return await Promise.all(
      addresses.map(async (address, host) => {
        const others = [SEED_ADDRESS, ...addresses.filter((other) => other !== address)];
        const program = programs.start(hostNamespace(host), `streams-h${host + 1}`, command(address, origin.sizeBytes, others));
        await program.line(/^ready$/);
        const done = program.line(/^done$/).then(({ at }) => at);
        return { path: undefined, programs: [program], go: () => program.release(), done };
      }),
    );
  },
};
