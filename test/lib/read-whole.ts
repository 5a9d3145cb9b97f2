/** Reads a file as a consumer does: opened, from the first byte to the last, closed. */
import type { ContentOpener, ContentRequest } from "../../src/peer/content.ts";

/** @throws what opening or reading throws; the content is closed all the same */
export async function readWhole(opener: ContentOpener, request: ContentRequest, signal: AbortSignal = new AbortController().signal): Promise<Buffer> {
  const content = await opener.open(request, signal);
  const chunks: Uint8Array[] = [];
  try {
    for await (const chunk of content.read({ startByte: 0, endByte: undefined }, signal)) chunks.push(chunk);
  } finally {
    content.close();
  }
  return Buffer.concat(chunks);
}
