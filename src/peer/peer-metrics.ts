/** What a peer tells Prometheus: read from its counters when asked, so that the data plane pays nothing. */
import { Counter, Gauge, Registry } from "prom-client";
import type { DiskStore } from "./store/disk-store.ts";
import type { Peer } from "./peer.ts";

/** A registry of its own: a process may hold several peers (tests, the demo). */
export function peerMetrics(peer: Peer, store: DiskStore, connected: () => boolean): Registry {
  const registry = new Registry();
  const registers = [registry];
  const gauge = (name: string, help: string, read: () => number): void => {
    new Gauge({ name, help, registers, collect() { this.set(read()); } });
  };
  const counter = (name: string, help: string, read: () => number): void => {
    // The counter stands elsewhere; this one is brought up to it.
    let told = 0;
    new Counter({
      name,
      help,
      registers,
      collect() {
        const now = read();
        this.inc(now - told);
        told = now;
      },
    });
  };
  counter("dragonfly_peer_upload_bytes_total", "Bytes of pieces sent to other peers", () => peer.counters.uploadedBytes);
  counter("dragonfly_peer_download_bytes_total", "Bytes of pieces received from other peers", () => peer.counters.downloadedBytes);
  counter("dragonfly_peer_wasted_bytes_total", "Bytes received and dropped: pieces doubled, cancelled or broken off", () => peer.counters.wastedBytes);
  counter("dragonfly_peer_rejected_pieces_total", "Pieces that did not have their digest", () => peer.counters.rejectedPieces);
  counter("dragonfly_peer_forged_proofs_total", "Proofs and lengths whose signature was forged", () => peer.counters.forgedProofs);
  gauge("dragonfly_peer_receiving_bytes", "Memory taken by pieces being received or verified", () => peer.receivingBytes);
  gauge("dragonfly_peer_links", "Links to other peers", () => peer.linkCount);
  gauge("dragonfly_peer_open_tasks", "Tasks this peer takes part in", () => peer.openTasks().length);
  gauge("dragonfly_peer_registered", "1 while registered at a supernode", () => Number(connected()));
  gauge("dragonfly_cache_bytes", "Bytes of pieces on disk", () => store.usage().usedBytes);
  gauge("dragonfly_cache_tasks", "Tasks on disk", () => store.usage().taskCount);
  counter("dragonfly_cache_evicted_bytes_total", "Bytes given up to make room", () => store.usage().evictedBytes);
  counter("dragonfly_cache_damaged_pieces_total", "Pieces the disk did not give back as written", () => store.usage().damagedPieces);
  return registry;
}
