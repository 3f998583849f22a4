/** The public library: everything that `import … from 'llava-ts'` offers. */

export { type Classification, type ClassifyOptions, Clip } from './clip.ts'
export type { Part, Role, Turn } from './conversation/turns.ts'
export type { FinishReason, GenerationOptions, GenerationResult, Piece } from './generation/generate.ts'
export { type Precision, type PrecisionChoice, precisions } from './generation/precision.ts'
export type { LogProbability, SamplingOptions } from './generation/sampling.ts'
export type { Values } from './generation/uncached.ts'
export type { ImageFault, ImageSource } from './image/decode.ts'
export { type Pixels, pixels } from './image/pixels.ts'
export { type Answer, type AskOptions, type Conversation, Llava, type LoadOptions, type Question } from './llava.ts'
export type { ClipConfig, TextEncoderConfig } from './model/clip-config.ts'
export type { LanguageModelConfig, LlavaConfig, ProjectorConfig, VisionEncoderConfig } from './model/config.ts'
export { type Device, devices } from './runtime/device.ts'
