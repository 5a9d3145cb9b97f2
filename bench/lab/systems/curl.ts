/** No peer-to-peer at all: every host fetches the whole file from the origin, through the seed's link. */
import { join } from "node:path";
import { isInstalled } from "../command.ts";
import { hostNamespace } from "../network.ts";
import { FILE_NAME } from "../origin.ts";
import type { System } from "../system.ts";

export const curl: System = {
  name: "curl",
  missing: () => (isInstalled("curl") ? undefined : "curl is not installed"),
  prepare: async ({ options, origin, programs, directory }) =>
    Array.from({ length: options.hosts }, (_, host) => {
      const path = join(directory(`h${host + 1}`), FILE_NAME);
      const program = programs.startHeld(hostNamespace(host), `curl-h${host + 1}`, ["curl", "-sSf", "-o", path, origin.url]);
      return { path, programs: [program], go: () => program.release(), done: program.success() };
    }),
};
