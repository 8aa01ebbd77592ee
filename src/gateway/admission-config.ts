import * as v from 'valibot';
import { described, integerBetween } from '../base/config.ts';

const perSecond = (usual: number, what: string) =>
  described(v.optional(integerBetween(1, 1_000_000), usual), what);

/** The table `[admission]` of the gateway's configuration. */
export const admissionSection = described(
  v.optional(
    v.strictObject({
      address: perSecond(
        1,
        'Conversations per second of one address where no device proved itself lately; 64 times as many at once',
      ),
      prefix: perSecond(100, 'The same of all such addresses of one /24 or /64; 10 times as many at once'),
      strangers: perSecond(
        500,
        'The same of all such addresses together; 4 times as many at once. Addresses that used a quarter of what they may have at once share a tenth of it',
      ),
      known: perSecond(
        200,
        'Conversations per second of one address where a device proved itself lately; 5 times as many at once',
      ),
      'all-known': perSecond(1000, 'The same of all such addresses together; 8 times as many at once'),
      proven: perSecond(
        10_000,
        'Datagrams per second of one device that has proved itself at its address and port; 4 times as many of all',
      ),
      multicast: perSecond(
        3000,
        'Multicast requests per second of all addresses where no device proved itself lately',
      ),
    }),
    {},
  ),
  'What is let in from the private network, before anything of it is parsed. A conversation is 16 datagrams of one address and port, or 8 HTTP requests. A device that proves itself puts back what it took, and more. What is not let in gets no answer over CoAP and 503 over HTTP',
);
