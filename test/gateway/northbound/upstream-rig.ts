import { seededEntropy, systemEntropy } from '../../../src/base/entropy.ts';
import { Upstream } from '../../../src/gateway/northbound/upstream.ts';
import { Downlink, type DownPackage } from '../../../src/headend/downlink.ts';
import type { MqttSettings } from '../../../src/wire/tunnel/mqtt-settings.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';

let seed = 1;

/** The uplink of gateway `gw-1`. Its time stands still unless the test moves it. A request has 60 s. */
export function upstreamTo(url: string, protocol: MqttSettings['protocol'] = 5) {
  const clock = new HandClock();
  const events = new EventRecorder();
  const upstream = new Upstream(
    {
      gatewayId: 'gw-1',
      settings: { url, protocol },
      softwareVersion: '1.0',
      clock,
      entropy: seededEntropy(seed++),
      events,
    },
    60_000,
  );
  upstream.start({ notified: async () => {}, connected: () => {}, disconnected: () => {} });
  return { upstream, clock, events };
}

export const request = (device: string) => ({
  device,
  server: 'dm.example',
  contentType: 'text/plain',
  body: Buffer.from(`package of ${device}`),
});

/** The head-end's side of the binding. It answers each package with the package itself. */
export function headendAt(
  url: string,
  answerPackage = async (body: Uint8Array): Promise<DownPackage> => ({ body }),
  protocol: MqttSettings['protocol'] = 5,
  route = 'worker-1',
) {
  const clock = new HandClock();
  const events = new EventRecorder();
  const states: { online: boolean; problem: string | undefined }[] = [];
  const downlink = new Downlink({
    gatewayRate: 500,
    serverId: 'dm.example',
    route,
    settings: { url, protocol },
    clock,
    entropy: systemEntropy,
    events,
  });
  downlink.start({
    isProven: () => true,
    answerPackage: async ({ envelope }) => await answerPackage(envelope.body ?? new Uint8Array()),
    gatewayStateChanged: (_gateway, state) =>
      states.push({ online: state?.online ?? false, problem: state?.problem }),
  });
  return { downlink, clock, events, states };
}
