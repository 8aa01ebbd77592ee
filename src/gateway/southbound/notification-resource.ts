import { Code } from '../../wire/coap/codes.ts';
import type { CoapRequest } from '../../wire/coap/message.ts';
import { refusal, reply } from '../../wire/coap/message.ts';
import type { Resource } from '../../wire/coap/router.ts';
import { paths } from '../../wire/resources.ts';

/**
 * `/dmn` of a child gateway: Package #0 for itself, or with `?id=` for a device behind it, which the parent gateway hands
 * down untouched.
 */
export function notificationResource(
  isParent: (request: CoapRequest) => boolean,
  notified: (deviceId: string | undefined, package0: Uint8Array) => Promise<void>,
): Resource {
  return {
    path: `/${paths.notification.join('/')}`,
    methods: {
      POST: async (request) => {
        if (!isParent(request)) return refusal(Code.Forbidden, 'only the parent gateway notifies here');
        await notified(request.parameter('id'), request.payload);
        return reply(Code.Changed);
      },
    },
  };
}
