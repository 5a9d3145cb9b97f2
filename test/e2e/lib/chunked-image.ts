import { createHash } from "node:crypto";
import { chmodSync, copyFileSync, symlinkSync, writeFileSync } from "node:fs";

import type { Lab } from "./processes.ts";
import { newerDebian } from "./tools.ts";

/** Large enough that each is chunks of its own. */
const FILE_BYTES = 120_000;

/**
 * An image whose layers are zstd:chunked, pushed straight into the registry at `backUrl`: who has some of its files
 * already fetches the others, by ranges.
 *
 * @param files each file's content is made from its word
 * @returns what its command prints
 */
export async function pushChunkedImage(
  lab: Lab,
  backUrl: string,
  image: { readonly repository: string; readonly tag: string; readonly files: readonly string[] },
): Promise<string> {
  const layout = `chunked-${image.tag}`;
  const [bin, data] = [lab.makeDir(layout, "bin"), lab.makeDir(layout, "data")];
  copyFileSync("/bin/busybox", `${bin}/busybox`);
  chmodSync(`${bin}/busybox`, 0o755);
  for (const applet of ["sh", "sha256sum"]) symlinkSync("busybox", `${bin}/${applet}`);
  const lines = image.files.map((word, i) => {
    const content = contentOf(word);
    const name = `file-${String(i).padStart(2, "0")}`;
    writeFileSync(`${data}/${name}`, content);
    return `${createHash("sha256").update(content).digest("hex")}  /data/${name}\n`;
  });
  const oci = `${layout}/oci`;
  const reference = `${oci}:v`;
  await lab.must(["umoci", "init", "--layout", oci]);
  await lab.must(["umoci", "new", "--image", reference]);
  await lab.must(["umoci", "insert", "--image", reference, bin, "/bin"]);
  await lab.must(["umoci", "insert", "--image", reference, data, "/data"]);
  const command = ["/bin/sh", "-c", "sha256sum /data/*"].flatMap((word) => ["--config.cmd", word]);
  await lab.must(["umoci", "config", "--image", reference, "--config.env", "PATH=/bin", ...command]);

  // Debian stable's skopeo does not know the format; the newer one is at home in files that stay as they are.
  const root = newerDebian();
  const at = `${root}/mnt`;
  const destination = `docker://${new URL(backUrl).host}/${image.repository}:${image.tag}`;
  const flags = "--insecure-policy --quiet --dest-tls-verify=false --dest-compress-format zstd:chunked --dest-force-compress-format";
  const script = [
    `mount --bind ${lab.dir} ${at}`,
    `mount --rbind /proc ${root}/proc`,
    `mount --rbind /dev ${root}/dev`,
    `mount -t tmpfs tmpfs ${root}/var/tmp`,
    `exec chroot ${root} skopeo copy ${flags} oci:/mnt/${reference} ${destination}`,
  ].join(" && ");
  await lab.must(["unshare", "--mount", "sh", "-c", script]);
  return lines.join("");
}

/** Incompressible, and the same for the same word. */
function contentOf(word: string): Buffer {
  const blocks = Array.from({ length: FILE_BYTES / 32 }, (_, i) => createHash("sha256").update(`${word} ${i}`).digest());
  return Buffer.concat(blocks);
}
