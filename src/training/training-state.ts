/**
 * What a training step changes, where it stands: weights and moments of the optimizer, and the gradients.
 *
 * On the CPU all of it lies in main memory and is changed in place. On a GPU it stays in the GPU's memory, where no operator may write what it reads:
 * there are two copies, and each update reads one and writes the other. Main memory then holds what was last put there by `fetchState`.
 */

import type { Compute } from '../runtime/device.ts'
import {
  type DeviceTensor,
  disposeTensor,
  type ResidentTensor,
  type SessionTensor,
} from '../runtime/resident-tensor.ts'
import { createSession, deviceTensor, disposeSession, run, type Session } from '../runtime/session.ts'
import { input, writeOnnx } from '../tensor/index.ts'

type HostTensors = ReadonlyMap<string, ResidentTensor<'float32'>>
type Tensors = ReadonlyMap<string, SessionTensor>

/** Tensors that are read (`current`) and where what follows them is written (`next`): the same ones where that may be done in place. */
export type Turning = { current: Tensors; next: Tensors }

export type TrainingState = {
  /** Trained weights and moments. */
  readonly values: Turning
  readonly gradients: Turning
  /** Where the gradients of a further batch go before they are added; undefined where the runtime makes room for them. */
  readonly moreGradients: Tensors | undefined
  readonly device:
    | { readonly host: HostTensors; readonly copy: Session; readonly owned: readonly DeviceTensor[] }
    | undefined
}

/** @param host `values`: trained weights and moments; `gradients`: tensors of the gradients' names and shapes */
export async function createTrainingState(
  host: { values: HostTensors; gradients: HostTensors },
  { device, threads }: Compute,
): Promise<TrainingState> {
  const { values, gradients } = host
  if (device !== 'webgpu') {
    return {
      values: { current: values, next: values },
      gradients: { current: gradients, next: gradients },
      moreGradients: undefined,
      device: undefined,
    }
  }
  const copy = await createSession(copyGraph(values), { device, threads })
  const owned: DeviceTensor[] = []
  const twins = async (tensors: HostTensors): Promise<Tensors> => {
    const made = new Map<string, DeviceTensor>()
    for (const [name, { dtype, shape }] of tensors) made.set(name, await deviceTensor(copy, { dtype, shape }))
    owned.push(...made.values())
    return made
  }
  const state = {
    values: { current: await twins(values), next: await twins(values) },
    gradients: { current: await twins(gradients), next: await twins(gradients) },
    moreGradients: await twins(gradients),
    device: { host: values, copy, owned },
  }
  await placeState(state)
  return state
}

/** What was written becomes what is read. */
export function turn(tensors: Turning): void {
  const { current, next } = tensors
  tensors.current = next
  tensors.next = current
}

/** Brings weights and moments from main memory to where steps use them. */
export async function placeState({ values, device }: TrainingState): Promise<void> {
  if (device !== undefined) await copyAll(device.copy, { from: device.host, to: values.current })
}

/** Brings weights and moments to main memory as they are now. */
export async function fetchState({ values, device }: TrainingState): Promise<void> {
  if (device !== undefined) await copyAll(device.copy, { from: values.current, to: device.host })
}

export async function disposeTrainingState({ device }: TrainingState): Promise<void> {
  device?.owned.forEach(disposeTensor)
  if (device !== undefined) await disposeSession(device.copy)
}

function copyGraph(tensors: HostTensors): Uint8Array {
  const copies = [...tensors].map(([name, { shape }]) => [copied(name), input(name, 'float32', shape)] as const)
  return writeOnnx(Object.fromEntries(copies), { parameters: 'inputs', name: 'copy', operators: 'gpu' }).model
}

async function copyAll(session: Session, { from, to }: { from: Tensors; to: Tensors }): Promise<void> {
  const outputs = Object.fromEntries([...to].map(([name, tensor]) => [copied(name), tensor]))
  await run(session, Object.fromEntries(from), { outputs, fetch: [] })
}

function copied(name: string): string {
  return `copy:${name}`
}
