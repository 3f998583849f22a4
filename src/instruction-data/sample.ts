/** A sample: pictures, most often one, and a conversation about them, as training and evaluation receive it. */

import type { Turn } from '../conversation/turns.ts'
import type { Pixels } from '../image/pixels.ts'
import type { Size } from '../image/tiles.ts'

export type Sample = {
  readonly id: string
  readonly turns: readonly Turn[]
  /** In the order in which the turns show them; none in a conversation without pictures. */
  readonly pictures: readonly SamplePicture[]
  /** A caption, and at most `contrasts` like it that are false; samples without one have their first answer for a caption. */
  readonly caption?: (contrasts: number) => Caption
  /** Only worlds whose truth is known patch by patch have them. */
  readonly labels?: PatchLabels
  /** What each answer shows that the model can do, in the order of the answers; scores are reported by skill. */
  readonly skills?: readonly string[]
  /** Whether a text is a right answer to question number `index`; only of samples whose truth is known. */
  readonly score?: (index: number, answer: string) => boolean
}

/** A picture, read or drawn when asked for: stages that read words never ask. */
export type SamplePicture = {
  readonly pixels: () => Promise<Pixels>
  /** Its width and height in pixels, for less than the pixels cost. */
  readonly size: () => Promise<Size>
  /** A hash of the picture's file, in hexadecimal digits, where there is one: what was computed from the picture can be found again by it. */
  readonly key?: () => Promise<string>
}

/** What is true of a picture, and what differs from it in one fact. */
export type Caption = {
  readonly text: string
  readonly contrasts: readonly { readonly fact: string; readonly text: string }[]
}

/** Indices into the names of the source's labels, made when asked for: [P] each. */
export type PatchLabels = {
  /** What each patch is a part of. */
  readonly parts: () => Int32Array
  /** The thing whose middle each patch holds: every thing is in one patch. */
  readonly centers: () => Int32Array
}

export type SampleMeasure = { readonly words: number; readonly pictures: number }

/** What labels mean, a word each. Those below `backgrounds` say where no thing is: a meadow, the night. */
export type LabelNames = { readonly names: readonly string[]; readonly backgrounds: number }

/**
 * A sequence of samples in which number `index` is always the same one: a run that stops continues at the next index, and sees what it would have seen.
 */
export type SampleSource = {
  /** Samples in one pass, or undefined for an endless world. */
  readonly size: number | undefined
  /** The picture written in words is made of these names. */
  readonly labels?: LabelNames
  readonly sample: (index: number) => Promise<Sample>
  /** How long a sample of a finite source is, roughly, without making it. */
  readonly measure?: (index: number) => SampleMeasure
}
