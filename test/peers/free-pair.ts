import { createSocket } from 'node:dgram';
import { once } from 'node:events';

/** A UDP port of 127.0.0.1 that is free, as is the one above it: for CoAP, and for CoAP over DTLS. */
export async function freePair(): Promise<number> {
  for (;;) {
    const [one, two] = [createSocket('udp4'), createSocket('udp4')];
    try {
      one.bind(0, '127.0.0.1');
      await once(one, 'listening');
      const { port } = one.address();
      if (port === 65_535) continue;
      two.bind(port + 1, '127.0.0.1');
      await once(two, 'listening');
      return port;
    } catch {
      // The port above is taken.
    } finally {
      one.close();
      two.close();
    }
  }
}
