/** A segment of a program: ELF64, little-endian, which is what all boards and the machines that build for them have. */
export interface Segment {
  readonly type: number;
  readonly flags: number;
  /** Of its first byte in the file. */
  readonly offset: number;
  readonly address: number;
  /** Bytes in the file; what it has beyond them in memory is zeros. */
  readonly fileSize: number;
  readonly memorySize: number;
  readonly alignment: number;
}

export const segmentType = { load: 1, dynamic: 2, interpreter: 3, headers: 6 } as const;
export const segmentBytes = 56;
/** Where the file's header has the place of the segments, that of the sections, and how many there are of each. */
export const headerField = {
  segments: 32,
  sections: 40,
  segmentCount: 56,
  sectionCount: 60,
  sectionNames: 62,
} as const;

export const isElf = (bytes: Buffer): boolean => bytes.toString('latin1', 0, 6) === '\x7fELF\x02\x01';

export function segmentsOf(program: Buffer): Segment[] {
  const start = Number(program.readBigUInt64LE(headerField.segments));
  return Array.from({ length: program.readUInt16LE(headerField.segmentCount) }, (_, index) => {
    const at = start + index * segmentBytes;
    const word = (offset: number) => Number(program.readBigUInt64LE(at + offset));
    return {
      type: program.readUInt32LE(at),
      flags: program.readUInt32LE(at + 4),
      offset: word(8),
      address: word(16),
      fileSize: word(32),
      memorySize: word(40),
      alignment: word(48),
    };
  });
}

export function writeSegment(program: Buffer, at: number, segment: Segment): void {
  program.writeUInt32LE(segment.type, at);
  program.writeUInt32LE(segment.flags, at + 4);
  const { offset, address, fileSize, memorySize, alignment } = segment;
  // Of two addresses, the physical one means nothing here.
  for (const [index, word] of [offset, address, address, fileSize, memorySize, alignment].entries())
    program.writeBigUInt64LE(BigInt(word), at + 8 + 8 * index);
}
