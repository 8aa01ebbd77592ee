/** A program header of an ELF file. Only ELF64, little-endian, is supported, which all boards and build machines have. */
export interface Segment {
  readonly type: number;
  readonly flags: number;
  /** Offset of its first byte in the file. */
  readonly offset: number;
  /** Address of its first byte in memory. */
  readonly address: number;
  /** Bytes in the file. */
  readonly fileSize: number;
  /** Bytes in memory. Those beyond `fileSize` are zeros. */
  readonly memorySize: number;
  readonly alignment: number;
}

/** Values of `Segment.type`. */
export const segmentType = { load: 1, dynamic: 2, interpreter: 3, headers: 6 } as const;
/** Bytes of one program header. */
export const segmentBytes = 56;
/** Bytes of one section header. */
const sectionBytes = 64;
/**
 * Offsets in the header of an ELF file: of the fields with the offsets of program headers and section headers, with their
 * numbers, and with the index of the section names.
 */
export const headerField = {
  segments: 32,
  sections: 40,
  segmentCount: 56,
  sectionCount: 60,
  sectionNames: 62,
} as const;

/** Whether the file is ELF64, little-endian. */
export const isElf = (bytes: Buffer): boolean => bytes.toString('latin1', 0, 6) === '\x7fELF\x02\x01';

/** Reads all program headers of an ELF file. */
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

/** Writes a program header at an offset of the file. */
export function writeSegment(program: Buffer, at: number, segment: Segment): void {
  program.writeUInt32LE(segment.type, at);
  program.writeUInt32LE(segment.flags, at + 4);
  const { offset, address, fileSize, memorySize, alignment } = segment;
  // A program header has a virtual and a physical address. Linux ignores the physical one.
  for (const [index, word] of [offset, address, address, fileSize, memorySize, alignment].entries())
    program.writeBigUInt64LE(BigInt(word), at + 8 + 8 * index);
}

/** A section of an ELF file. */
export interface Section {
  readonly name: string;
  readonly address: number;
  /** Offset of its first byte in the file. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
  /** Index of the section with its strings, for a symbol table. */
  readonly link: number;
}

/** Reads all section headers of an ELF file. */
export function sectionsOf(program: Buffer): Section[] {
  const table = Number(program.readBigUInt64LE(headerField.sections));
  const at = (index: number) => table + index * sectionBytes;
  const names = Number(program.readBigUInt64LE(at(program.readUInt16LE(headerField.sectionNames)) + 24));
  return Array.from({ length: program.readUInt16LE(headerField.sectionCount) }, (_, index) => {
    const word = (offset: number) => Number(program.readBigUInt64LE(at(index) + offset));
    const name = names + program.readUInt32LE(at(index));
    return {
      name: program.toString('latin1', name, program.indexOf(0, name)),
      address: word(16),
      offset: word(24),
      size: word(32),
      link: program.readUInt32LE(at(index) + 40),
    };
  });
}
