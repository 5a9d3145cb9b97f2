/**
 * Runs that failed once, each with its story. They are kept as options, not as seeds, so that they stay the same runs
 * when more is drawn from a seed. Whether each would still fail without its fix, later changes decide.
 */
export interface Regression {
  readonly story: string;
  /** As printed by the run that failed. */
  readonly options: string;
}

export const REGRESSIONS: readonly Regression[] = [
  {
    story:
      "Seed 682: two peers that agree and never send held five pieces between them for ever. Each was given up after five seconds and offered the piece again at once, before those who had it and meant it. Such peers are now refused for a while (swarm/promises.ts).",
    options:
      '{"seed":682,"peerCount":6,"seedFactor":4,"originBytesPerSecond":3125000,"delayUs":10000,"slowStart":true,"fairQueueing":true,"oversubscription":4,"labelled":true,"readers":true,"faults":{"leaves":2,"returns":2,"freezes":2,"liars":2},"tasks":[{"pieceCount":109,"pieceLengthBytes":65536,"priority":"interactive"}]}',
  },
  {
    story:
      "The same, with peers that leave the task and join it again each second, so that nothing agreed was ever late: broken promises are remembered by name, and a promise ended by leaving is broken, too.",
    options:
      '{"seed":171,"peerCount":4,"tasks":[{"pieceCount":8,"pieceLengthBytes":65536,"priority":"interactive"}],"uplinks":"mixed","seedFactor":4,"originBytesPerSecond":25000000,"delayUs":10000,"windowBytes":4194304,"slowStart":true,"fairQueueing":true,"rackSize":4,"labelled":true,"faults":{"liars":2}}',
  },
];
