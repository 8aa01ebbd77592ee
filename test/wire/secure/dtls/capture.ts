import { writeFileSync } from 'node:fs';

/** A datagram as it was on the loopback interface. */
export interface Captured {
  readonly from: { readonly address: string; readonly port: number };
  readonly to: { readonly address: string; readonly port: number };
  readonly bytes: Buffer;
}

/** Link type of packets that begin with the IP header (LINKTYPE_RAW). */
const rawIp = 101;

const ip = (address: string): number[] => address.split('.').map(Number);

/** Writes datagrams of IPv4 to a file that tshark and Wireshark read (pcap, version 2.4), a millisecond apart. */
export function writeCapture(file: string, datagrams: readonly Captured[]): void {
  const head = Buffer.alloc(24);
  head.writeUInt32LE(0xa1b2c3d4, 0);
  head.writeUInt16LE(2, 4);
  head.writeUInt16LE(4, 6);
  head.writeUInt32LE(65_535, 16);
  head.writeUInt32LE(rawIp, 20);
  const packets = datagrams.map(({ from, to, bytes }, number) => {
    const packet = Buffer.alloc(16 + 28 + bytes.length);
    packet.writeUInt32LE(1_700_000_000, 0);
    packet.writeUInt32LE(number * 1000, 4);
    packet.writeUInt32LE(28 + bytes.length, 8);
    packet.writeUInt32LE(28 + bytes.length, 12);
    const header = packet.subarray(16);
    header[0] = 0x45;
    header.writeUInt16BE(28 + bytes.length, 2);
    header[8] = 64;
    header[9] = 17;
    header.set([...ip(from.address), ...ip(to.address)], 12);
    header.writeUInt16BE(from.port, 20);
    header.writeUInt16BE(to.port, 22);
    header.writeUInt16BE(8 + bytes.length, 24);
    bytes.copy(header, 28);
    return packet;
  });
  writeFileSync(file, Buffer.concat([head, ...packets]));
}
