/** BitTorrent by libtorrent-rasterbar, through its Python binding. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { hostAddress, hostNamespace, SEED, SEED_ADDRESS } from "../network.ts";
import { FILE_NAME } from "../origin.ts";
import type { System } from "../system.ts";
import { prepareTorrent } from "./prepare-torrent.ts";

const SCRIPT = join(import.meta.dirname, "../libtorrent_peer.py");
/** The distribution's own interpreter first: that is where its packages are. */
const PYTHONS = ["/usr/bin/python3", "python3"];

export const libtorrent: System = {
  name: "libtorrent",
  missing: () => (python() === undefined ? "the Python module libtorrent is not installed" : undefined),
  prepare: async (stage) => {
    const interpreter = python() ?? "python3";
    const { torrent, seedDirectory, seedKnown } = await prepareTorrent(stage);
    const command = (address: string, directory: string, role: string): string[] => [interpreter, SCRIPT, role, torrent, directory, address];
    const seed = stage.programs.start(SEED, "libtorrent-seed", command(SEED_ADDRESS, seedDirectory, "seed"));
    await Promise.race([seedKnown, seed.success()]);
    return await Promise.all(
      Array.from({ length: stage.options.hosts }, async (_, host) => {
        const directory = stage.directory(`h${host + 1}`);
        const program = stage.programs.start(hostNamespace(host), `libtorrent-h${host + 1}`, command(hostAddress(host), directory, "peer"));
        await program.line(/^ready$/);
        const done = program.line(/^done$/).then(({ at }) => at);
        return { path: join(directory, FILE_NAME), programs: [program], go: () => program.release(), done };
      }),
    );
  },
};

function python(): string | undefined {
  return PYTHONS.find((name) => spawnSync(name, ["-c", "import libtorrent"]).status === 0);
}
