import { Code } from '../../wire/coap/codes.ts';
import type { CoapRequest } from '../../wire/coap/message.ts';
import { refusal, reply } from '../../wire/coap/message.ts';
import type { Resource } from '../../wire/coap/router.ts';
import { paths } from '../../wire/resources.ts';

/**
 * CoAP resource `/dmn` of a child gateway. The parent gateway posts Package #0 here: for the child itself, or with
 * `?id=` for a device behind it. The parent forwards it unchanged.
 * @param isParent whether a request comes from the parent; others get 4.03
 * @param notified takes the Package #0; `deviceId` is undefined when it is for the gateway itself
 */
export function notificationResource(
  isParent: (request: CoapRequest) => boolean,
  notified: (deviceId: string | undefined, package0: Uint8Array) => Promise<void>,
): Resource {
  return {
    path: `/${paths.notification.join('/')}`,
    methods: {
      POST: async (request) => {
        if (!isParent(request))
          return refusal(Code.Forbidden, 'only the parent gateway may send notifications here');
        await notified(request.parameter('id'), request.payload);
        return reply(Code.Changed);
      },
    },
  };
}
