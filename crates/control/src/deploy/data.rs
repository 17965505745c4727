//! The steps that move data.

use trackbed_core::deployment::Deployment;
use trackbed_core::service::Service;

use super::StepError;
use crate::control::Control;

impl Control {
    pub(super) async fn stage_data(&self, _: &Service, _: &mut Deployment) -> Result<(), StepError> {
        Ok(())
    }
    pub(super) async fn rehearse(&self, _: &Service, _: &mut Deployment) -> Result<(), StepError> {
        Ok(())
    }
    pub(super) async fn pin_data(&self, _: &Service, _: &mut Deployment) -> Result<(), StepError> {
        Ok(())
    }
    pub(super) async fn swap_data(&self, _: &Service, _: &mut Deployment) -> Result<(), StepError> {
        Ok(())
    }
}
