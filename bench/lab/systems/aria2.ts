/** BitTorrent by aria2: its defaults, without the ways of finding peers that a tracker makes superfluous. */
import { join } from "node:path";
import { isInstalled } from "../command.ts";
import { hostNamespace, SEED } from "../network.ts";
import { FILE_NAME } from "../origin.ts";
import type { System } from "../system.ts";
import { prepareTorrent } from "./prepare-torrent.ts";

const SETTINGS = [
  "--no-conf", "--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false", "--disable-ipv6",
  "--seed-ratio=0.0", "--file-allocation=none", "--listen-port=6881",
  "--show-console-readout=false", "--summary-interval=0", "--console-log-level=notice", "--enable-color=false",
  // Says when the file is there: it is called with the download's number, the count of files, the first file's path.
  "--on-bt-download-complete=/bin/echo",
  // Without this an unlucky first announcement leaves a host alone for two minutes.
  "--bt-tracker-interval=2",
];

const COMPLETE = new RegExp(`^[0-9a-f]{16} 1 .*/${FILE_NAME}$`);

export const aria2: System = {
  name: "aria2",
  missing: () => (isInstalled("aria2c") ? undefined : "aria2c is not installed"),
  prepare: async (stage) => {
    const { torrent, seedDirectory, seedKnown } = await prepareTorrent(stage);
    const command = (directory: string, ...more: string[]): string[] => ["aria2c", ...SETTINGS, ...more, `--dir=${directory}`, torrent];
    const seed = stage.programs.start(SEED, "aria2-seed", command(seedDirectory, "--check-integrity=true"));
    await Promise.race([seedKnown, seed.success()]);
    return Array.from({ length: stage.options.hosts }, (_, host) => {
      const directory = stage.directory(`h${host + 1}`);
      const program = stage.programs.startHeld(hostNamespace(host), `aria2-h${host + 1}`, command(directory));
      const done = program.line(COMPLETE).then(({ at }) => at);
      return { path: join(directory, FILE_NAME), programs: [program], go: () => program.release(), done };
    });
  },
};
