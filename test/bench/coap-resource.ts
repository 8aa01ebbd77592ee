import type { Clock } from '../../src/base/clock.ts';
import { Blockwise } from '../../src/wire/coap/blockwise.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import type { CoapEndpoint } from '../../src/wire/coap/endpoint.ts';
import { type CoapRequest, type Handler, reply } from '../../src/wire/coap/message.ts';
import { Router } from '../../src/wire/coap/router.ts';

/** The payload that all servers of the CoAP benchmark send. */
export const body = 'Nov 24 12:00:00';

const rate = { rate: 1e9, burst: 1e9 };
/** One client asks as fast as it can, which no device may. */
export const unlimited = { proven: rate, allProven: rate } as const;

/** The resource /time of the CoAP benchmark, with all parts of a gateway's CoAP layer around it. */
export function timeResource(clock: Clock, endpoint: () => CoapEndpoint): Handler {
  const get = ({ remote }: CoapRequest) => {
    // A real gateway vouches for an address once a session from there has proved itself.
    if (!endpoint().isProven(remote)) endpoint().vouch(remote);
    return reply(Code.Content, { payload: body, contentFormat: 0 });
  };
  return new Blockwise(new Router([{ path: '/time', methods: { GET: get } }]).handle, clock).handle;
}
