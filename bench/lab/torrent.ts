/** Bencoding, and the .torrent of one file (BitTorrent v1). */
import { createHash } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";

export type Bencodable = number | string | Uint8Array | readonly Bencodable[] | { readonly [key: string]: Bencodable };

export function bencode(value: Bencodable): Buffer {
  if (typeof value === "number") return Buffer.from(`i${value}e`);
  if (typeof value === "string") return bencode(Buffer.from(value));
  if (value instanceof Uint8Array) return Buffer.concat([Buffer.from(`${value.length}:`), value]);
  if (isList(value)) return Buffer.concat([Buffer.from("l"), ...value.map(bencode), Buffer.from("e")]);
  const entries = Object.entries(value).sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  return Buffer.concat([Buffer.from("d"), ...entries.flatMap(([key, item]) => [bencode(key), bencode(item)]), Buffer.from("e")]);
}

export function makeTorrent(path: string, name: string, sizeBytes: number, pieceBytes: number, announce: string): Buffer {
  const hashes: Buffer[] = [];
  const piece = Buffer.alloc(pieceBytes);
  const file = openSync(path, "r");
  for (let offset = 0; offset < sizeBytes; offset += pieceBytes) {
    const count = readSync(file, piece, 0, Math.min(pieceBytes, sizeBytes - offset), offset);
    hashes.push(createHash("sha1").update(piece.subarray(0, count)).digest());
  }
  closeSync(file);
  return bencode({
    announce,
    info: { length: sizeBytes, name, "piece length": pieceBytes, pieces: Buffer.concat(hashes) },
  });
}

function isList(value: Bencodable): value is readonly Bencodable[] {
  return Array.isArray(value);
}
